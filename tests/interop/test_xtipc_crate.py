"""The integration tests of the crate `tipc` of crates.io, as they are, run by `xtipc run`."""
import json
import pathlib
import shutil
import tempfile

import lab
from cluster import SegmentTest

VERSION = "0.1.2"
BUILD_S = 900


class CrateTest(SegmentTest):
    def test_the_own_tests_of_the_crate_tipc_pass(self):
        if not self.segment.full:
            self.skipTest("fetches and builds bindgen and what it needs: with --full")
        with tempfile.TemporaryDirectory() as directory:
            program = self.build(pathlib.Path(directory))
            told = lab.run(*self.alpha.run_command(program, "--test-threads=1"), timeout_s=60)
        self.assertIn("test result: ok. 7 passed; 0 failed", told)

    def build(self, directory):
        """The program of the crate's tests."""
        (directory / "src").mkdir()
        (directory / "src/lib.rs").touch()
        (directory / "Cargo.toml").write_text(f'[package]\nname = "fetching"\nedition = "2024"\n[dependencies]\ntipc = "={VERSION}"\n[workspace]\n')
        known = json.loads(lab.run("cargo", "metadata", "--format-version", "1", cwd=directory, timeout_s=BUILD_S))
        source, = (pathlib.Path(package["manifest_path"]).parent for package in known["packages"] if package["name"] == "tipc")
        crate = directory / "tipc"
        shutil.copytree(source, crate)
        with (crate / "Cargo.toml").open("a") as manifest:
            manifest.write("\n[workspace]\n")
        told = lab.run("cargo", "test", "--no-run", "--test", "integration", "--message-format", "json", "--target-dir", directory / "target",
                       cwd=crate, timeout_s=BUILD_S)
        built = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
        return next(line["executable"] for line in built if line.get("executable"))
