"""CloudFormation as far as `edgefleet_aws.template` needs it, on moto's IAM and IoT.

moto's own knows no topic rules, and needs a dozen more libraries. A type of resource that isn't
known here is refused, never passed over.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from moto.iam.models import iam_backends
from moto.iot.models import iot_backends

from edgefleet_aws.cloud.packages import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]+)\}")


class Stacks:
    """Makes, changes and removes the resources of templates.

    Args:
        region: of the resources.
    """

    def __init__(self, region: str) -> None:
        self._iot = iot_backends[ACCOUNT][region]
        self._iam = iam_backends[ACCOUNT]["aws"]
        self._pseudo = {
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::AccountId": ACCOUNT,
        }
        self._makers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "AWS::IAM::Role": self._role,
            "AWS::IoT::Policy": self._policy,
            "AWS::IoT::RoleAlias": self._role_alias,
            "AWS::IoT::TopicRule": self._rule,
        }

    def apply(self, template: Mapping[str, Any]) -> None:
        """Make what a template names, and change what is there and otherwise.

        Raises:
            NotImplementedError: a type of resource isn't known here.
        """
        for resource in template["Resources"].values():
            maker = self._makers.get(resource["Type"])
            if maker is None:
                raise NotImplementedError(f"stacks with {resource['Type']}")
            maker(self._resolved(resource["Properties"]))

    def remove(self, template: Mapping[str, Any]) -> None:
        """Remove what a template names, the last first."""
        for resource in reversed(template["Resources"].values()):
            properties = resource["Properties"]
            match resource["Type"]:
                case "AWS::IAM::Role":
                    for policy in properties["Policies"]:
                        self._iam.delete_role_policy(properties["RoleName"], policy["PolicyName"])
                    self._iam.delete_role(properties["RoleName"])
                case "AWS::IoT::Policy":
                    self._iot.delete_policy(properties["PolicyName"])
                case "AWS::IoT::RoleAlias":
                    self._iot.delete_role_alias(properties["RoleAlias"])
                case "AWS::IoT::TopicRule":
                    self._iot.delete_topic_rule(properties["RuleName"])

    def _resolved(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            if value.keys() == {"Fn::Sub"}:
                return _PLACEHOLDER.sub(self._value, value["Fn::Sub"])
            return {key: self._resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        return value

    def _value(self, found: re.Match[str]) -> str:
        literal, name = found.groups()
        return f"${{{name}}}" if literal else self._pseudo[name]

    def _role(self, properties: Mapping[str, Any]) -> None:
        name = properties["RoleName"]
        trust = json.dumps(properties["AssumeRolePolicyDocument"])
        if any(role.name == name for role in self._iam.get_roles()):
            self._iam.delete_role_policy(name, properties["Policies"][0]["PolicyName"])
            self._iam.delete_role(name)
        self._iam.create_role(name, trust, "/", None, "", [], None)
        for policy in properties["Policies"]:
            document = json.dumps(policy["PolicyDocument"])
            self._iam.put_role_policy(name, policy["PolicyName"], document)

    def _policy(self, properties: Mapping[str, Any]) -> None:
        name, document = properties["PolicyName"], properties["PolicyDocument"]
        if name in self._iot.policies:  # it may be attached, and stays so
            self._iot.policies[name].document = document
        else:
            self._iot.create_policy(name, document)

    def _role_alias(self, properties: Mapping[str, Any]) -> None:
        if properties["RoleAlias"] not in self._iot.role_aliases:
            self._iot.create_role_alias(properties["RoleAlias"], properties["RoleArn"])

    def _rule(self, properties: Mapping[str, Any]) -> None:
        payload = properties["TopicRulePayload"]
        actions = [
            {
                "s3": {
                    "bucketName": action["S3"]["BucketName"],
                    "key": action["S3"]["Key"],
                    "roleArn": action["S3"]["RoleArn"],
                }
            }
            for action in payload["Actions"]
        ]
        self._iot.rules.pop(properties["RuleName"], None)
        self._iot.create_topic_rule(
            properties["RuleName"],
            payload["Sql"],
            description="",
            error_action={},
            actions=actions,
            rule_disabled=payload["RuleDisabled"],
            aws_iot_sql_version=payload["AwsIotSqlVersion"],
        )
