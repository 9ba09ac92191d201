"""The npm packages that building needs, as pinned tarballs in a cache: no Node.js runs here.

`python -m assay_contracts.deploy.npm_packages` fetches what is absent, so that later builds and
tests work offline. Only fetching needs the program npm; without it the tarballs can be put in place
by hand.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FETCH_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, and the sha256 of its tarball."""

    name: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the tarball is kept, under the name npm gives it."""
        return cache() / f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def fetch(self) -> Path:
        """The tarball's path, fetched if need be. Raises RuntimeError if npm is absent or fails, or
        if the tarball is another one."""
        if not self.path.exists():
            self._pack()
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise RuntimeError(f"{self.path} is not {self.name} {self.version}: sha256 {digest}")
        return self.path

    def read(self, members: tuple[str, ...]) -> dict[str, str]:
        """Files of the package as text, by their path in it."""
        with tarfile.open(self.fetch()) as archive:
            found = {name: archive.extractfile(f"package/{name}") for name in members}
            return {name: file.read().decode() for name, file in found.items() if file}

    def _pack(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            command = ["npm", "pack", f"{self.name}@{self.version}", "--pack-destination", folder]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
            except FileNotFoundError:
                raise RuntimeError(f"npm is not installed, and {self.path} is absent") from None
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                raise RuntimeError(f"{self.name}@{self.version} cannot be fetched") from error
            (fetched,) = Path(folder).iterdir()
            fetched.replace(self.path)


SOLC: Final = Package(
    "solc", "0.8.37", "0e1a1ab6d12c37f5503271b2c4679cd433459c884851920d148d6fb154575a51"
)
OPENZEPPELIN: Final = Package(
    "@openzeppelin/contracts",
    "5.7.0",
    "ab2a1b476b9e2d84225454eca21783805db5754b5f8dfb3d6fca05341b00b8ea",
)
PACKAGES: Final = (SOLC, OPENZEPPELIN)


def cache() -> Path:
    """The folder of all that is fetched once: ASSAY_CACHE, by default ~/.cache/assay."""
    given = os.environ.get("ASSAY_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(given) if given else base / "assay"


def main() -> int:
    """Fetches all; tests that need a package are skipped without it, so a failure is only told."""
    for package in PACKAGES:
        try:
            package.fetch()
        except RuntimeError as error:
            print(f"without {package.name} contracts cannot be rebuilt: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
