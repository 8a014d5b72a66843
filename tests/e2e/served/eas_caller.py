"""Calls a service with EAS's own client library, in its own environment: NAME TOKEN ENDPOINT gateway|direct.

Prints {"body": ...} or {"code": ..., "message": ...}. The library pins an old protobuf, so nothing of Easel is here.
"""

import json
import sys

from eas_prediction import ENDPOINT_TYPE_DIRECT, PredictClient, PredictException, StringRequest

service, token, endpoint, mode = sys.argv[1:]
client = PredictClient(endpoint, service)
if token:
    client.set_token(token)
if mode == "direct":
    client.set_endpoint_type(ENDPOINT_TYPE_DIRECT)
client.set_retry_count(1)
client.init()
try:
    answer = client.predict(StringRequest("hello")).response_data.decode()
except PredictException as error:
    print(json.dumps({"code": error.code, "message": str(error)}))
else:
    print(json.dumps({"body": answer}))
