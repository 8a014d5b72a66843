"""Access log messages as an Envoy would send them."""

from __future__ import annotations

from easel_monitor.envoy_metrics_pb2 import Duration, HTTPAccessLogEntry, StreamAccessLogsMessage


def entry(
    message: StreamAccessLogsMessage, *, subject: str = "c1", arm: str = "stable", status: int = 200,
    details: str = "via_upstream", sent_ms: float | None = 1.0, sent_all_ms: float | None = 2.0,
    answered_ms: float | None = 22.0, ended_ms: float = 30.0, picked: str = "", meant: str = "",
    trailers: dict[str, str] | None = None, headers: dict[str, str] | None = None, **flags: bool,
) -> HTTPAccessLogEntry:  # fmt: skip
    """One request; by default answered by stable 20 ms after it was sent on."""
    made = message.http_logs.log_entry.add()
    common = made.common_properties
    for field, ms in (
        (common.time_to_first_upstream_tx_byte, sent_ms), (common.time_to_last_upstream_tx_byte, sent_all_ms),
        (common.time_to_first_upstream_rx_byte, answered_ms), (common.duration, ended_ms),
    ):  # fmt: skip
        if ms is not None:
            field.CopyFrom(Duration(seconds=int(ms // 1000), nanos=round(ms % 1000 * 1e6)))
    fields = common.metadata.filter_metadata["easel"].fields
    fields["subject"].string_value = subject
    if picked:
        fields["arm"].string_value = picked
    common.custom_tags["arm"] = arm
    if meant:
        common.custom_tags["meant"] = meant
    for flag, on in flags.items():
        setattr(common.response_flags, flag, on)
    made.response.response_code.value = status
    made.response.response_code_details = details
    made.response.response_trailers.update(trailers or {})
    made.response.response_headers.update(headers or {})
    return made
