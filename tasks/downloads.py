"""Files from the network: whole, with the digest that was published, or not at all."""

import hashlib
import sys
from pathlib import Path

SECONDS = 30.0
"""Without a byte from the server until the download is given up."""

BLOCK = 2**20


def download(url: str, sha256: str, to: Path) -> Path:
    """Downloads a file, unless it is there.

    It is written under another name and gets its own once it is known to be whole, so that no
    reader ever sees a part of it.

    Args:
      url: its address.
      sha256: its digest, in hexadecimal.
      to: where it goes.

    Returns:
      ``to``.

    Raises:
      OSError: where it cannot be had or written, or has another digest.
    """
    if to.is_file():
        return to
    import urllib.request  # slow to import
    from http.client import HTTPException

    if not url.startswith("http"):
        raise OSError(f"{url} is not published alone")
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")
    digest = hashlib.sha256()
    print(f"metaopt: downloading {url}", file=sys.stderr, flush=True)
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as source, part.open("wb") as file:
            while block := source.read(BLOCK):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise OSError(f"{url} is not the file that was published, or not the whole of it")
        return part.replace(to)
    except HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
    finally:
        part.unlink(missing_ok=True)
