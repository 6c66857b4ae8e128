"""Programs out of Debian's packages, unpacked without installing them and without root."""

import shutil
from dataclasses import dataclass

from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Unavailable, commands


@dataclass(frozen=True)
class DebianPackage:
    """A package of the distribution, whatever version that has; apt checks its hash and signature.

    Attributes:
        package: its name.
        member: the program's path inside it.
    """

    package: str
    member: str

    def bring(self, order: Order, progress: Progress) -> str:
        """Download the package, unpack it aside, take the program."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise Unavailable("this is not a Debian-like system")
        try:
            self._apt(order, progress, "download", self.package)
        except Unavailable:
            # The system's package lists are old or were never fetched: take new ones, of our own, so that no root is
            # needed and nothing of the system changes.
            lists = order.scratch / "apt"
            for folder in ("lists/partial", "cache/archives/partial"):
                (lists / folder).mkdir(parents=True)
            own = [f"-oDir::State::lists={lists}/lists", f"-oDir::Cache={lists}/cache", "-oAPT::Sandbox::User=root"]
            self._apt(order, progress, *own, "update")
            self._apt(order, progress, *own, "download", self.package)
        package = next(order.scratch.glob(f"{self.package}_*.deb"), None)
        if package is None:
            raise Unavailable(f"apt-get downloaded no `{self.package}`")
        unpacked = order.scratch / "unpacked"
        commands.run(["dpkg-deb", "-x", str(package), str(unpacked)], cwd=order.scratch)
        shutil.copyfile(unpacked / self.member, order.folder / order.program)
        return f"Debian package {package.name}"

    def _apt(self, order: Order, progress: Progress, *arguments: str) -> None:
        commands.run(
            ["apt-get", *arguments],
            cwd=order.scratch,
            on_tick=lambda elapsed_s: progress.moving(f"fetching Debian's `{self.package}`: {elapsed_s:.0f} s"),
        )
