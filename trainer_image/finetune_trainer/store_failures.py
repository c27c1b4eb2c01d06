"""Why a store could not be read or written, in a sentence for the person who started the run."""

import re

from finetune_trainer.errors import NotFound, StorageError

VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""What a person sets so that a store lets them in."""

_LOCAL_CAUSES = (
    ("No space left on device|Disk quota exceeded", "the disk is full; free some space or choose another place"),
    ("Read-only file system", "the file system is read-only; choose another place"),
    (
        "Permission denied|Operation not permitted",
        "permission denied; change the owner or the permissions of the folder, or choose another place",
    ),
    ("Not a directory|File exists", "a file is where a folder is needed; move it away or choose another place"),
    ("Unable to create dir", "the folder cannot be created; check the path or choose another place"),
    ("Is a directory", "a folder is where a file is needed; move it away or choose another place"),
)

_NO_BUCKET = "NoSuchBucket|InvalidBucketName|ContainerNotFound|specified (bucket|container) (does not|is not)"
_REFUSED = r"status code: 40[13]\b|XAdminUserNotFound|InvalidAccessKeyId|AuthenticationFailed"
_WRITING = r"performing (PUT|POST) "
_REMOTE_CAUSES = (
    # Without credentials the client asks the cloud's own metadata service for some, and reports how that went.
    (
        r"169\.254\.169\.254|metadata\.google\.internal|Missing \w*Key|Account must be|service account",
        "no complete credentials were found; set {variables}",
    ),
    (
        "configured region|PermanentRedirect|AuthorizationHeaderMalformed",
        "the bucket is in another region; set AWS_REGION",
    ),
    (
        "InvalidCertificate",
        "the certificate of {server} is not trusted; name the file of its certificate authority in SSL_CERT_FILE",
    ),
    (
        _REFUSED,
        "the store refused the credentials{code}; check {variables}, and that they may read, write, list and delete"
        " here",
    ),
    (r"status code: (5\d\d|429)", "{server} failed{code}{tries}; try again later"),
    (
        "error sending request|error decoding response body|[Tt]imed ?out",
        "{server} could not be reached{tries}; check the address, the server and the network",
    ),
    (
        f"{_WRITING}.+status code: 40[45]",
        "{server} does not know how to write{code}; check that {variables} name the store and not some other server",
    ),
)


def explain(where: str, error: Exception) -> StorageError:
    """The error to raise for a failure at `where`: a URI, followed by its folder where it has another name."""
    text = str(error)
    scheme, _, rest = where.partition("://")
    if scheme not in VARIABLES:
        if isinstance(error, FileNotFoundError):
            return NotFound(f"{where} does not exist.")
        return StorageError(f"{where}: {_cause(_LOCAL_CAUSES, text)}.")
    if re.search(_NO_BUCKET, text):
        bucket = f"{scheme}://{rest.partition('/')[0]}"
        return NotFound(f"{where}: the bucket {bucket} does not exist; create it or correct the URI.")
    if isinstance(error, FileNotFoundError) and not re.search(f"{_REFUSED}|{_WRITING}", text):
        return NotFound(f"{where} does not exist.")
    return StorageError(f"{where}: {_cause(_REMOTE_CAUSES, text, **_particulars(scheme, text))}.")


def _cause(causes: tuple[tuple[str, str], ...], text: str, **particulars: str) -> str:
    """The cause that fits, else the first line of what the client said."""
    for pattern, cause in causes:
        if re.search(pattern, text):
            return cause.format(**particulars)
    return text.partition("\n")[0].rstrip(" .")[:300]


def _particulars(scheme: str, text: str) -> dict[str, str]:
    server = re.search(r"https?://[^/\s]+", text)
    code = re.search(r"<Code>(\w+)</Code>|status code: (\d+)", text)
    retries = re.search(r"after (\d+) retries", text)
    return {
        "variables": VARIABLES[scheme],
        "server": server[0] if server else "the server",
        "code": f" ({code[1] or code[2]})" if code else "",
        "tries": f" (tried {int(retries[1]) + 1} times)" if retries else "",
    }
