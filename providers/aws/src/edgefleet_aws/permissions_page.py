"""The page of permissions, written from the list and the template.

``python -m edgefleet_aws.permissions_page > docs/reference/aws-permissions.md``; a test holds that
file against it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgefleet_aws.names import Names
from edgefleet_aws.permissions import OPERATOR, STACK, policy, readable, training_policy
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.template import device_statements, iot_statements

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Permissions on AWS

<!-- Made by `python -m edgefleet_aws.permissions_page`; don't edit. -->

The least that each part needs, for the bucket `BUCKET` and the prefix `PREFIX`. A test runs every
part of the operator's with exactly its policy on the mock cloud and compares it with the calls
that were made; nothing of it was tried on a real account. Give a person the policies of the parts
that they use. `Resource` is narrow for S3; narrow it for the rest to your things, groups and
stacks.

`edgefleet doctor --profile P` tries each of these with a call that changes nothing, and names
those that are missing.
"""
_JOBS = (
    "https://docs.aws.amazon.com/greengrass/v2/developerguide/security_iam_service-with-iam.html"
)
_ABOUT = {
    "registry": "Push, approve, list and delete versions.",
    "state": "Releases, pointers and other shared documents.",
    "trainer": "Start, follow and stop training; `iam:PassRole` is for `training_role` alone.",
    "automating": "Make and follow pipelines that train, evaluate and register; `iam:PassRole` is "
    "for `pipeline_role` alone.\nMaking one may also need `sagemaker:AddTags`.",
    "compiling": "Compile with Neo; `iam:PassRole` is for `training_role` alone.",
    "telemetry": "Read what devices recorded.",
    "receiving": "Write what devices of a gateway recorded, or a stick brings. Nobody else needs "
    "it, so doctor tries\nit where a gateway is in the profile, and warns.",
    "deployer": "Enrol devices, deliver, read status, ask a device. Deployments to things also "
    "need the\n"
    f"[IoT jobs permissions]({_JOBS})\nthat Greengrass's guide lists.",
    "install": "`edgefleet install`, its dry run and its teardown. Deleting is for "
    "`--teardown --data`, the indexing\nconfiguration for `fleet_indexing`, the endpoint for "
    "`provision_group`.",
}
_STACK = """\
### install, through CloudFormation

CloudFormation makes the stack in the installer's name. These are the permissions of the resource
types' own handlers, as far as the template's properties use them, read in the types' schemas; no
test compares them with calls.
"""
_DEVICE = """\
## Devices

Install makes both and attaches them. The role behind the role alias, for S3:
"""
_CERTIFICATE = """\
And the policy of the devices' certificates, beside what the nucleus itself needs:
"""
_TRAINING = """\
## Training jobs

For `training_role`, whose trust policy names `sagemaker.amazonaws.com`. The script calls nothing
of AWS for EdgeFleet: SageMaker reads the channels, writes outputs and logs in the role's name.
Data in an `s3://` place of your own need `s3:GetObject` and `s3:ListBucket` there, and a private
image [what ECR asks for](https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html).
No test compares these with SageMaker's own calls.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    names = Names(AwsSettings(bucket="bucket", prefix="prefix"))
    names.bucket, names.prefix = "BUCKET", "PREFIX"
    yield _HEAD
    yield "## Operators\n"
    for part, actions in OPERATOR.items():
        yield f"### {part}\n"
        yield f"{_ABOUT[part]}\n"
        yield _block(policy(names, actions))
    yield _STACK
    made = {action for kind in STACK.values() for action in kind}
    statement = {"Effect": "Allow", "Action": sorted(made), "Resource": "*"}
    yield _block(_document([statement]))
    told = Names(AwsSettings(bucket="bucket", prefix="prefix"))
    yield _DEVICE
    yield _block(_document(_written(device_statements(told))))
    yield _CERTIFICATE
    yield _block(_document(_written(iot_statements(told))))
    yield _TRAINING
    yield _block(training_policy(names)).rstrip("\n") + "\n"


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def _block(document: dict[str, Any]) -> str:
    return f"```json\n{readable(document)}\n```\n"


def _written(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A template's statements as CloudFormation would write them."""
    if isinstance(value, dict):
        if value.keys() == {"Fn::Sub"}:
            text = value["Fn::Sub"].replace("${AWS::Partition}", "aws")
            text = text.replace("${AWS::Region}", "REGION").replace("${AWS::AccountId}", "ACCOUNT")
            text = text.replace("${!", "${").replace("prefix_hot", "PREFIX_hot")
            return (
                text.replace("prefix/", "PREFIX/")
                .replace("prefix-", "PREFIX-")
                .replace(":::bucket/", ":::BUCKET/")
            )
        return {key: _written(item) for key, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.stdout.write(page())
