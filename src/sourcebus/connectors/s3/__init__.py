"""The connector ``s3``: the objects of one bucket, on AWS or any server that speaks its protocol.

The rooms inside: `settings` (what a source may say), `bucket` and `meaning` (asking the bucket, and what its failures mean),
`records` and `keys` (what a notification says, in each sender's words), `sns` (proving and confirming what SNS delivers),
`queue` (notifications that wait in SQS). What it promises is in docs/connectors/s3.md.
"""

from importlib.util import find_spec

if find_spec("botocore") is None:
    raise ImportError("it needs botocore: pip install 'sourcebus[s3]'")

from sourcebus.connectors.s3.connector import S3Connector, S3QueueConnector

__all__ = ["S3Connector", "S3QueueConnector"]
