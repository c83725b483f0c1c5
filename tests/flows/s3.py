"""A server with the interface of S3, on loopback: moto's, which keeps all in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import boto3
import httpx
from moto.server import ThreadedMotoServer

BUCKET: Final = "gdc"


@dataclass(frozen=True)
class Store:
    """A server with an empty bucket ``BUCKET``."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Credentials, which are not looked at, and the address as MLflow's server reads it."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": self.address,
            "NO_PROXY": "127.0.0.1",
        }

    def objects(self) -> dict[str, bytes]:
        """Contents of the bucket by key."""
        bucket = self._connect().Bucket(BUCKET)
        return {found.key: found.get()["Body"].read() for found in bucket.objects.all()}

    def make_bucket(self) -> None:
        """Make the bucket."""
        self._connect().create_bucket(Bucket=BUCKET)

    def _connect(self) -> Any:  # noqa: ANN401 - boto3 makes its classes while it runs
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        key_id, secret, region = (self.environment[name] for name in names)
        session = boto3.Session(key_id, secret, region_name=region)
        return session.resource("s3", endpoint_url=self.address)


@contextmanager
def s3_server() -> Iterator[Store]:
    """Start a server in a thread of this process, and end it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = Store(f"http://{host}:{port}")
        # A former server of this process has left its buckets.
        with httpx.Client(trust_env=False) as client:
            client.post(f"{store.address}/moto-api/reset").raise_for_status()
        store.make_bucket()
        yield store
    finally:
        server.stop()
