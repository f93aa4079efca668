"""Manifests in a git work tree, for sites that the operator's side doesn't reach."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from edgefleet.errors import ConflictError, NotFoundError, ProfileError, UnsupportedError
from edgefleet.interfaces.values import Action
from edgefleet.testing.kit import samples
from edgefleet_kubernetes.gitops import GitDeployer
from edgefleet_kubernetes.settings import KubernetesSettings
from providers.kubernetes.tests.deployer_rig import IMAGE


class NoClients:
    """Reaches nothing."""

    contexts = ()

    def close(self) -> None:
        pass


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes deployers into one folder."""

    def made(**changes: Any) -> GitDeployer:
        fields = {"runtime_image": IMAGE, "delivery": "git", "git_dir": "site", **changes}
        settings = KubernetesSettings(**fields)
        return GitDeployer(cast("Any", NoClients()), settings, base=tmp_path)

    return made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def deployer(make: Any) -> GitDeployer:
    made: GitDeployer = make()
    made.install(group="line-3")
    return made


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file, and when it was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(one): (one.read_bytes(), one.stat().st_mtime_ns) for one in files}


def test_a_pointer_is_published_as_a_file_and_read_back(deployer: GitDeployer) -> None:
    assert deployer.pointer("line-3") is None
    deployer.publish("line-3", samples.pointer(1))
    assert deployer.pointer("line-3") == samples.pointer(1)
    assert [group.name for group in deployer.groups()] == ["line-3"]


def test_with_images_publishing_writes_the_daemon_set_and_installing_keeps_it(
    make: Any, site: Path
) -> None:
    held = make(model_images="registry.example/releases")
    held.install(group="line-3")
    held.publish("line-3", samples.pointer(1))
    tag = f"release-{samples.pointer(1).current[7:19]}"
    assert mounted(site) == [f"registry.example/releases:{tag}"]
    before = content(site)
    held.install(group="line-3")
    assert content(site) == before


def mounted(site: Path) -> list[str]:
    """The images that the DaemonSet in a folder mounts."""
    (path,) = site.glob("objects/*daemonset*.yaml")
    spec = yaml.safe_load(path.read_bytes())["spec"]["template"]["spec"]
    return [one["image"]["reference"] for one in spec["volumes"] if "image" in one]


def test_the_same_again_touches_no_file(deployer: GitDeployer, make: Any, site: Path) -> None:
    deployer.publish("line-3", samples.pointer(1))
    before = content(site)
    make().install()
    make().publish("line-3", samples.pointer(1))
    assert (content(site) == before) is True


def test_a_release_changes_one_file(deployer: GitDeployer, site: Path) -> None:
    deployer.publish("line-3", samples.pointer(1))
    before = content(site)
    deployer.publish("line-3", samples.pointer(2))
    after = content(site)
    changed = [path for path in after if after[path] != before.get(path)]
    assert [Path(path).name for path in changed] == [
        "3-configmap.edgefleet.edgefleet-pointer-line-3.yaml"
    ]


def test_publishing_writes_what_was_rendered(deployer: GitDeployer, site: Path) -> None:
    rendered = deployer.render("line-3", samples.pointer(1))
    assert {one.action for one in rendered} == {Action.CREATE, Action.UPDATE}
    deployer.publish("line-3", samples.pointer(1))
    for one in rendered:
        written = (site / one.path.removeprefix("kubernetes/")).read_bytes()
        assert samples.Content.of(written) == samples.Content.of(one.content)
    again = deployer.render("line-3", samples.pointer(1))
    assert {one.action for one in again} == {Action.UNCHANGED}


def test_a_lower_pointer_is_refused(deployer: GitDeployer) -> None:
    deployer.publish("line-3", samples.pointer(5))
    with pytest.raises(ConflictError):
        deployer.publish("line-3", samples.pointer(4))
    assert deployer.pointer("line-3") == samples.pointer(5)


def test_of_racing_pointers_the_highest_stays(deployer: GitDeployer, make: Any) -> None:
    def publish(number: int) -> None:
        try:
            make().publish("line-3", samples.pointer(number))
        except ConflictError:
            assert number < samples.THREADS

    samples.at_once([partial(publish, number) for number in range(1, samples.THREADS + 1)])
    assert deployer.pointer("line-3") == samples.pointer(samples.THREADS)


def test_what_others_wrote_stays(deployer: GitDeployer, make: Any, site: Path) -> None:
    theirs = site / "objects" / "9-theirs.yaml"
    one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs}\n"
    theirs.write_text(f"{one}---\n{one}")
    listing = site / "kustomization.yaml"
    found = yaml.safe_load(listing.read_bytes())
    patches = [{"path": "gpu.yaml"}]
    found["resources"].insert(0, "../common")
    listing.write_text(yaml.safe_dump({**found, "patches": patches}))
    deployer.publish("line-3", samples.pointer(1))
    make().uninstall(data=True)
    left = yaml.safe_load(listing.read_bytes())
    assert left["resources"] == ["../common"]
    assert left["patches"] == patches
    assert [path.name for path in (site / "objects").iterdir()] == ["9-theirs.yaml"]


def test_a_teardown_leaves_pointers_unless_data_are_to_go(
    deployer: GitDeployer, site: Path
) -> None:
    deployer.publish("line-3", samples.pointer(1))
    deployer.uninstall()
    left = {path.name.split(".")[0] for path in (site / "objects").iterdir()}
    assert left == {"0-namespace", "3-configmap"}


def test_a_setting_that_is_gone_takes_its_file_along(
    deployer: GitDeployer, make: Any, site: Path
) -> None:
    assert list(site.glob("objects/4-poddisruptionbudget.*"))
    make(min_available=0).install()
    assert not list(site.glob("objects/4-poddisruptionbudget.*"))
    listed = yaml.safe_load((site / "kustomization.yaml").read_bytes())["resources"]
    assert all((site / path).exists() for path in listed)


def test_no_secret_is_written(deployer: GitDeployer, site: Path) -> None:
    deployer.publish("line-3", samples.pointer(1))
    kinds = {yaml.safe_load(path.read_bytes())["kind"] for path in site.rglob("*.yaml")}
    assert "DaemonSet" in kinds
    assert "Secret" not in kinds


def test_nothing_is_committed(deployer: GitDeployer, site: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")

    def run(*words: str) -> str:
        done = subprocess.run(
            [git, "-C", site, *words], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    run("init", "-q")
    deployer.publish("line-3", samples.pointer(1))
    assert run("rev-list", "--all") == ""
    lines = run("status", "--porcelain", "--untracked-files=all").splitlines()
    assert any("pointer-line-3" in line for line in lines)
    assert not [line for line in lines if not line.endswith(".yaml")]


def test_kustomize_builds_the_folder(deployer: GitDeployer, site: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    deployer.publish("line-3", samples.pointer(1))
    built = subprocess.run(
        [kubectl, "kustomize", site], check=True, capture_output=True, timeout=60
    )
    kinds = [one["kind"] for one in yaml.safe_load_all(built.stdout)]
    assert {"ConfigMap", "DaemonSet", "Namespace"} <= set(kinds)


def test_without_contexts_no_device_is_seen_and_labels_are_refused(
    deployer: GitDeployer,
) -> None:
    assert list(deployer.devices()) == []
    with pytest.raises(NotFoundError):
        deployer.label("a", {"x": "y"})
    with pytest.raises(UnsupportedError, match="kubectl label node a"):
        deployer._label("a", {"x": "y"})


def test_the_folder_has_to_be_named(make: Any) -> None:
    with pytest.raises(ProfileError, match="git_dir"):
        make(git_dir=None)
