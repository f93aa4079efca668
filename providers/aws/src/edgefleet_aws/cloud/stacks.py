"""CloudFormation as far as `edgefleet_aws.template` needs it, on moto's S3, IAM, IoT and logs.

moto's own knows no topic rules, and needs a dozen more libraries. A type of resource, a property or
a function that isn't known here is refused, never passed over.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from moto.iam.models import iam_backends
from moto.iot.models import iot_backends
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends

from edgefleet_aws.cloud.packages import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet_aws.cloud.provisioning import Provisioning

_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]+)\}")
_AWS_OWN = "arn:aws:iam::aws:policy/"  # moto doesn't hold AWS's own policies


class Kind(NamedTuple):
    """What is done for a type of resource.

    Attributes:
        make: makes a new one.
        change: makes one that is there as its properties say.
        remove: removes one.
        properties: that are known.
    """

    make: Callable[[Mapping[str, Any]], object]
    change: Callable[[Mapping[str, Any]], object]
    remove: Callable[[Mapping[str, Any]], object]
    properties: frozenset[str]


class Stacks:
    """Makes, changes and removes the resources of templates.

    Args:
        region: of the resources.
        provisioning: holds provisioning templates.
    """

    def __init__(self, region: str, provisioning: Provisioning) -> None:
        self._region = region
        self._provisioning = provisioning
        self._iot = iot_backends[ACCOUNT][region]
        self._iam = iam_backends[ACCOUNT]["aws"]
        self._s3 = s3_backends[ACCOUNT]["aws"]
        self._logs = logs_backends[ACCOUNT][region]
        self._pseudo = {
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::AccountId": ACCOUNT,
        }
        self.kinds: dict[str, Kind] = {
            "AWS::IAM::ManagedPolicy": Kind(
                self._make_managed,
                self._change_managed,
                self._remove_managed,
                frozenset({"ManagedPolicyName", "PolicyDocument", "Roles"}),
            ),
            "AWS::IAM::Role": Kind(
                self._make_role,
                self._change_role,
                self._remove_role,
                frozenset(
                    {"RoleName", "AssumeRolePolicyDocument", "Policies", "ManagedPolicyArns"}
                ),
            ),
            "AWS::IoT::Policy": Kind(
                lambda asked: self._iot.create_policy(asked["PolicyName"], asked["PolicyDocument"]),
                self._change_policy,
                lambda asked: self._iot.delete_policy(asked["PolicyName"]),
                frozenset({"PolicyName", "PolicyDocument"}),
            ),
            "AWS::IoT::ProvisioningTemplate": Kind(
                self._make_provisioning,
                self._change_provisioning,
                self._remove_provisioning,
                frozenset(
                    {
                        "Enabled",
                        "PreProvisioningHook",
                        "ProvisioningRoleArn",
                        "TemplateBody",
                        "TemplateName",
                    }
                ),
            ),
            "AWS::IoT::RoleAlias": Kind(
                lambda asked: self._iot.create_role_alias(asked["RoleAlias"], asked["RoleArn"]),
                lambda asked: self._iot.update_role_alias(asked["RoleAlias"], asked["RoleArn"]),
                lambda asked: self._iot.delete_role_alias(asked["RoleAlias"]),
                frozenset({"RoleAlias", "RoleArn"}),
            ),
            "AWS::IoT::TopicRule": Kind(
                self._make_rule,
                self._change_rule,
                lambda asked: self._iot.delete_topic_rule(asked["RuleName"]),
                frozenset({"RuleName", "TopicRulePayload"}),
            ),
            "AWS::Logs::LogGroup": Kind(
                self._make_log,
                self._change_log,
                lambda asked: self._logs.delete_log_group(asked["LogGroupName"]),
                frozenset({"LogGroupName", "RetentionInDays"}),
            ),
            "AWS::S3::Bucket": Kind(
                self._make_bucket,
                self._change_bucket,
                lambda asked: self._s3.delete_bucket(asked["BucketName"]),
                frozenset(
                    {
                        "BucketName",
                        "LifecycleConfiguration",
                        "OwnershipControls",
                        "PublicAccessBlockConfiguration",
                    }
                ),
            ),
        }

    def resources(
        self, template: Mapping[str, Any], parameters: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """The resources of a template that its conditions let be, in the order they are made in.

        Raises:
            NotImplementedError: a type of resource, or something in it, isn't known here.
        """
        conditions = {
            name: _condition(one, parameters)
            for name, one in template.get("Conditions", {}).items()
        }
        found = {}
        for name, resource in _ordered(template["Resources"]):
            if conditions.get(resource.get("Condition", ""), True):
                properties = self._resolved(resource["Properties"], parameters)
                kind = self.kinds.get(resource["Type"])
                if kind is None:
                    raise NotImplementedError(f"stacks with {resource['Type']}")
                unknown = properties.keys() - kind.properties
                if unknown:
                    raise NotImplementedError(f"{resource['Type']} with {sorted(unknown)}")
                found[name] = {**resource, "Properties": properties}
        return found

    def apply(self, wanted: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        """Make what is wanted, change what is there and otherwise, remove what is wanted no more.

        Args:
            wanted: resources, by `resources`.
            there: those of the stack so far.
        """
        for name, resource in wanted.items():
            kind = self.kinds[resource["Type"]]
            if name not in there:
                kind.make(resource["Properties"])
            elif there[name]["Properties"] != resource["Properties"]:
                kind.change(resource["Properties"])
        self.remove({name: one for name, one in there.items() if name not in wanted})

    def remove(self, there: Mapping[str, Any]) -> None:
        """Remove resources, the last first; those stay whose policy says so."""
        for resource in reversed(tuple(there.values())):
            if resource.get("DeletionPolicy") != "Retain":
                self.kinds[resource["Type"]].remove(resource["Properties"])

    def _resolved(self, value: Any, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            if value.keys() == {"Fn::Sub"}:
                return _PLACEHOLDER.sub(self._value, value["Fn::Sub"])
            if value.keys() == {"Ref"}:
                return parameters[value["Ref"]]
            return {key: self._resolved(item, parameters) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, parameters) for item in value]
        return value

    def _value(self, found: re.Match[str]) -> str:
        literal, name = found.groups()
        return f"${{{name}}}" if literal else self._pseudo[name]

    # IAM

    def _make_role(self, asked: Mapping[str, Any]) -> None:
        name = asked["RoleName"]
        trust = json.dumps(asked["AssumeRolePolicyDocument"])
        self._iam.create_role(name, trust, "/", None, "", [], None)
        self._put_policies(asked)

    def _put_policies(self, asked: Mapping[str, Any]) -> None:
        for arn in asked.get("ManagedPolicyArns", ()):
            if not arn.startswith(_AWS_OWN):
                self._iam.attach_role_policy(arn, asked["RoleName"])
        for policy in asked.get("Policies", ()):
            document = json.dumps(policy["PolicyDocument"])
            self._iam.put_role_policy(asked["RoleName"], policy["PolicyName"], document)

    def _change_role(self, asked: Mapping[str, Any]) -> None:
        role = self._iam.get_role(asked["RoleName"])
        role.assume_role_policy_document = json.dumps(asked["AssumeRolePolicyDocument"])
        for name in tuple(role.policies):
            self._iam.delete_role_policy(asked["RoleName"], name)
        self._put_policies(asked)

    def _remove_role(self, asked: Mapping[str, Any]) -> None:
        for policy in asked.get("Policies", ()):
            self._iam.delete_role_policy(asked["RoleName"], policy["PolicyName"])
        self._iam.delete_role(asked["RoleName"])

    def _make_managed(self, asked: Mapping[str, Any]) -> None:
        document = json.dumps(asked["PolicyDocument"])
        for role in asked.get("Roles", ()):
            self._iam.get_role(role)  # before anything is made
        made = self._iam.create_policy("", "/", document, asked["ManagedPolicyName"], [])
        for role in asked.get("Roles", ()):
            self._iam.attach_role_policy(made.arn, role)

    def _change_managed(self, asked: Mapping[str, Any]) -> None:
        """Remove it and make it anew: where it is attached is told by its properties alone."""
        self._remove_managed(asked)
        self._make_managed(asked)

    def _remove_managed(self, asked: Mapping[str, Any]) -> None:
        arn = f"arn:aws:iam::{ACCOUNT}:policy/{asked['ManagedPolicyName']}"
        for role in tuple(self._iam.get_roles()):
            if arn in role.managed_policies:
                self._iam.detach_role_policy(arn, role.name)
        self._iam.delete_policy(arn)

    # IoT

    def _change_policy(self, asked: Mapping[str, Any]) -> None:
        """It may be attached, and stays so."""
        self._iot.policies[asked["PolicyName"]].document = asked["PolicyDocument"]

    def _make_rule(self, asked: Mapping[str, Any]) -> None:
        payload = asked["TopicRulePayload"]
        self._iot.create_topic_rule(
            asked["RuleName"],
            payload["Sql"],
            description="",
            error_action=_lowered(payload.get("ErrorAction", {})),
            actions=[_lowered(action) for action in payload["Actions"]],
            rule_disabled=payload["RuleDisabled"],
            aws_iot_sql_version=payload["AwsIotSqlVersion"],
        )

    def _change_rule(self, asked: Mapping[str, Any]) -> None:
        self._iot.delete_topic_rule(asked["RuleName"])
        self._make_rule(asked)

    def _make_provisioning(self, asked: Mapping[str, Any]) -> None:
        self._provisioning.create(_lowered(asked))

    def _change_provisioning(self, asked: Mapping[str, Any]) -> None:
        self._remove_provisioning(asked)
        self._make_provisioning(asked)

    def _remove_provisioning(self, asked: Mapping[str, Any]) -> None:
        self._provisioning.delete({"templateName": asked["TemplateName"]})

    # CloudWatch Logs and S3

    def _make_log(self, asked: Mapping[str, Any]) -> None:
        self._logs.create_log_group(asked["LogGroupName"], {})
        self._change_log(asked)

    def _change_log(self, asked: Mapping[str, Any]) -> None:
        self._logs.put_retention_policy(asked["LogGroupName"], asked["RetentionInDays"])

    def _make_bucket(self, asked: Mapping[str, Any]) -> None:
        self._s3.create_bucket(asked["BucketName"], self._region)
        self._change_bucket(asked)

    def _change_bucket(self, asked: Mapping[str, Any]) -> None:
        name = asked["BucketName"]
        closed = asked.get("PublicAccessBlockConfiguration")
        self._s3.put_public_access_block(name, closed)
        rules = [
            {**_renamed(rule), "Filter": {"Prefix": ""}}
            for rule in asked.get("LifecycleConfiguration", {}).get("Rules", ())
        ]
        self._s3.put_bucket_lifecycle(name, rules)


def _condition(condition: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
    if condition.keys() != {"Fn::Equals"}:
        raise NotImplementedError(f"conditions with {sorted(condition)}")
    left, right = (
        parameters[one["Ref"]] if isinstance(one, dict) else one for one in condition["Fn::Equals"]
    )
    return bool(left == right)


def _ordered(resources: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Resources, each behind those that it depends on."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, Any]]:
        if name in done:
            return
        done.add(name)
        needed = resources[name].get("DependsOn", ())
        for other in [needed] if isinstance(needed, str) else needed:
            yield from visit(other)
        yield name, resources[name]

    for name in resources:
        yield from visit(name)


def _lowered(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Properties as AWS IoT's API has them: the same, with small first letters."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _lowered(item) for key, item in value.items()}
    return value


def _renamed(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A lifecycle rule as S3 has it."""
    return {"ID" if key == "Id" else key: value for key, value in rule.items()}
