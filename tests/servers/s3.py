"""An S3 server for tests: moto, behind a gate that is as strict as the real one.

Moto itself takes any signature. The gate checks each by botocore's own code, refuses clocks that are a quarter of
an hour off, and bodies that are not what their Content-MD5 says. Buckets are made at the start.

    s3.py --port 9000 --tls-port 9001 --cert server.pem --cert-key server.key --key K --secret S --buckets a,b
"""

import argparse
import base64
import calendar
import hashlib
import io
import re
import threading
import time
from urllib.parse import unquote

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

SKEW_MAX_S = 900


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class Gate:
    def __init__(self, app, options):
        self.app, self.options = app, options

    def __call__(self, environ, start_response):
        # Read whole in any case: the next request comes over the same connection.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            self.check(environ, body)
        except Refused as refused:
            text = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text))), ("x-amz-request-id", "GATE")]
            start_response(refused.status, headers)
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text]
        if "nocond" in environ["PATH_INFO"].split("/"):
            # What an old server does.
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self.app(environ, start_response)

    def check(self, environ, body):
        # The judge's own client signs in a header, which is not what is tested here.
        if "HTTP_AUTHORIZATION" in environ:
            return
        parts = [part for part in environ["QUERY_STRING"].split("&") if part]
        query = {name: unquote(value) for name, _, value in (part.partition("=") for part in parts)}
        if "X-Amz-Signature" not in query:
            raise Refused("403 Forbidden", "AccessDenied", "Access Denied")
        key, _, region = query["X-Amz-Credential"].split("/")[:3]
        if key != self.options.key:
            raise Refused("403 Forbidden", "InvalidAccessKeyId", "The key does not exist in our records.")
        signed_at = calendar.timegm(time.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        if abs(time.time() - signed_at) > SKEW_MAX_S:
            raise Refused("403 Forbidden", "RequestTimeTooSkewed", "The difference between the times is too large.")
        if self.signature(environ, parts, query, region) != query["X-Amz-Signature"]:
            raise Refused("403 Forbidden", "SignatureDoesNotMatch", "The signature does not match.")
        md5 = environ.get("HTTP_CONTENT_MD5")
        if md5 and md5 != base64.b64encode(hashlib.md5(body).digest()).decode():
            raise Refused("400 Bad Request", "BadDigest", "The Content-MD5 you specified did not match what we received.")
        if environ["REQUEST_METHOD"] == "PUT" and not md5:
            raise Refused("400 Bad Request", "InvalidRequest", "A put without Content-MD5.")

    def signature(self, environ, parts, query, region):
        headers = {}
        for name in query["X-Amz-SignedHeaders"].split(";"):
            plain = name.upper().replace("-", "_")
            headers[name] = environ.get(f"HTTP_{plain}") or environ.get(plain, "")
        path = environ["REQUEST_URI"].partition("?")[0]
        rest = "&".join(part for part in parts if not part.startswith("X-Amz-Signature="))
        url = f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{path}?{rest}"
        request = AWSRequest(environ["REQUEST_METHOD"], url, headers)
        request.context["timestamp"] = query["X-Amz-Date"]
        auth = S3SigV4QueryAuth(Credentials(self.options.key, self.options.secret, query.get("X-Amz-Security-Token")), "s3", region)
        return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


class Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        # The signature is a secret for as long as it is valid.
        print(time.strftime("%H:%M:%S"), re.sub(r"\?.*", "", self.path), self.command, code, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--cert-key", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--buckets", required=True)
    options = parser.parse_args()
    gate = Gate(DomainDispatcherApplication(create_backend_app), options)
    plain = make_server("127.0.0.1", options.port, gate, threaded=True, request_handler=Handler)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{options.port}",
        region_name="us-east-1",
        aws_access_key_id=options.key,
        aws_secret_access_key=options.secret,
    )
    for bucket in options.buckets.split(","):
        client.create_bucket(Bucket=bucket)
    # Who listens here is ready.
    context = (options.cert, options.cert_key)
    make_server("127.0.0.1", options.tls_port, gate, threaded=True, request_handler=Handler, ssl_context=context).serve_forever()


if __name__ == "__main__":
    main()
