"""What a browser sees at the control address: what this port is, and how to use it."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Easel: control port</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}
pre{background:#f4f4f4;padding:.7rem;overflow:auto}</style></head><body>
<h1>Easel: control port</h1>
<p>This port is for the <code>easel</code> command, the SDK, gRPC and REST. Models are called at the <em>data port</em>
(8080 unless it was moved): <code>/api/predict/NAME</code>.</p>
<pre>easel ls                     # services
easel create service.json --wait
easel desc NAME              # address and token
easel explain NAME           # why it is as it is</pre>
<p>REST, with the access key (<code>easel up</code> wrote it into its home directory):</p>
<pre>curl -H "Authorization: Bearer $EASEL_ACCESS_KEY" http://THIS-ADDRESS/v1/services</pre>
<p>Paths: <code>/v1/services</code>, <code>/v1/services/NAME</code>, <code>/v1/services/NAME/replicas</code>,
<code>/v1/services/NAME/logs</code>, <code>/v1/services/NAME/metrics</code>, <code>/v1/services/NAME/scaling</code>,
<code>/v1/services/NAME/route</code>, <code>/v1/services/NAME:explain</code>, <code>/v1/nodes</code>,
<code>/v1/events</code>, <code>/v1/audit</code>, <code>/v1/schema</code>. gRPC reflection is on.</p>
</body></html>
"""
