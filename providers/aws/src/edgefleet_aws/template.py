"""The CloudFormation template of a fleet: what its devices may do, and where their alarms go.

Pure: no call is made here. The least that works, as documents; the mock judges by the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_aws.names import SHADOW, Names

if TYPE_CHECKING:
    from edgefleet_aws.settings import AwsSettings

_VERSION = "2012-10-17"  # of the policy language
_THING = "${!iot:Connection.Thing.ThingName}"  # "!": for the policy, not for CloudFormation
_WITH_KEYS = "${!credentials-iot:ThingName}"


def template(settings: AwsSettings) -> dict[str, Any]:
    """The template for a fleet."""
    names = Names(settings)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"EdgeFleet, fleet {names.prefix}: access of its devices",
        "Resources": {
            "DeviceRole": _role(
                names.devices, "credentials.iot.amazonaws.com", device_statements(names)
            ),
            "DeviceRoleAlias": {
                "Type": "AWS::IoT::RoleAlias",
                "DependsOn": "DeviceRole",
                "Properties": {
                    "RoleAlias": names.devices,
                    "RoleArn": _iam(f"role/{names.devices}"),
                },
            },
            "DevicePolicy": {
                "Type": "AWS::IoT::Policy",
                "Properties": {
                    "PolicyName": names.devices,
                    "PolicyDocument": _document(iot_statements(names)),
                },
            },
            "HotRole": _role(f"{names.prefix}-hot", "iot.amazonaws.com", [_put_hot(names)]),
            "HotRule": {
                "Type": "AWS::IoT::TopicRule",
                "DependsOn": "HotRole",
                "Properties": {"RuleName": names.hot_rule, "TopicRulePayload": _hot_rule(names)},
            },
        },
    }


def device_statements(names: Names) -> list[dict[str, Any]]:
    """What a device's keys may do: read blobs and components, write below its own prefix."""
    return [
        {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [
                _object(names, f"{names.prefix}/{folder}/*") for folder in ("blobs", "components")
            ],
        },
        {
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": _object(names, f"{names.devices_folder(_WITH_KEYS)}*"),
        },
    ]


def iot_statements(names: Names) -> list[dict[str, Any]]:
    """What a device's certificate may do, beside what its nucleus needs."""
    shadow = f"$aws/things/{_THING}/shadow/name/{SHADOW}/update"
    invoke = names.invoke_topic(_THING)
    return [
        {"Effect": "Allow", "Action": action, "Resource": [_iot(one) for one in resources]}
        for action, resources in (
            ("iot:Publish", (f"topic/{shadow}", f"topic/{names.hot_topic(_THING)}")),
            ("iot:Subscribe", (f"topicfilter/{invoke}",)),
            ("iot:Receive", (f"topic/{invoke}",)),
            ("iot:AssumeRoleWithCertificate", (f"rolealias/{names.devices}",)),
        )
    ]


def _put_hot(names: Names) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": _object(names, f"{names.devices_folder('*')}hot/*"),
    }


def _hot_rule(names: Names) -> dict[str, Any]:
    topic = f"{names.prefix}/devices/+/hot"
    key = f"{names.prefix}/devices/${{topic(3)}}/hot/${{timestamp()}}-${{newuuid()}}.json"
    role = _iam(f"role/{names.prefix}-hot")
    return {
        "Sql": f"SELECT * FROM '{topic}'",  # noqa: S608 - no database, and our own name
        "AwsIotSqlVersion": "2016-03-23",
        "RuleDisabled": False,
        "Actions": [{"S3": {"BucketName": names.bucket, "Key": key, "RoleArn": role}}],
    }


def _role(name: str, service: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": name,
            "AssumeRolePolicyDocument": _document([trust]),
            "Policies": [{"PolicyName": "edgefleet", "PolicyDocument": _document(statements)}],
        },
    }


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": _VERSION, "Statement": statements}


def _object(names: Names, key: str) -> dict[str, str]:
    return _sub(f"arn:${{AWS::Partition}}:s3:::{names.bucket}/{key}")


def _iot(resource: str) -> dict[str, str]:
    where = "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}"
    return _sub(f"{where}:{resource}")


def _iam(resource: str) -> dict[str, str]:
    return _sub(f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:{resource}")


def _sub(text: str) -> dict[str, str]:
    return {"Fn::Sub": text}
