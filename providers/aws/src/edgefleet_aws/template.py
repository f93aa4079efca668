"""The CloudFormation template of a fleet: its bucket, what its devices may do, where alarms go.

Pure: no call is made here. The least that works, as documents; the mock judges by the same.

- A bucket that the stack makes outlives it: only somebody who asks for it loses models.
- Parameters hold what was there before, so that a teardown undoes what was done and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_aws import provisioning
from edgefleet_aws.names import SHADOW, Names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet_aws.settings import AwsSettings

_VERSION = "2012-10-17"  # of the policy language
_THING = "${!iot:Connection.Thing.ThingName}"  # "!": for the policy, not for CloudFormation
_WITH_KEYS = "${!credentials-iot:ThingName}"


MAKE_BUCKET = "MakeBucket"
"""Parameter: whether the bucket is the stack's own, ``yes`` or ``no``."""
INDEXING = "Indexing"
"""Parameter: what `indexing` did to the account's setting; one of `INDEXING_DONE`."""
INDEXING_DONE = ("no", "kept", "name", "all")
_LOG_DAYS = 30


def template(settings: AwsSettings) -> dict[str, Any]:
    """The template for a fleet."""
    names = Names(settings)
    more = {} if settings.provision_group is None else _provisioning(names, settings)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"EdgeFleet, fleet {names.prefix}: its bucket, access of its devices",
        "Parameters": {
            MAKE_BUCKET: {
                "Type": "String",
                "AllowedValues": ["yes", "no"],
                "Description": "no: the bucket was there before",
            },
            INDEXING: {
                "Type": "String",
                "AllowedValues": list(INDEXING_DONE),
                "Description": "what was changed in the account's fleet indexing",
            },
        },
        "Conditions": {"MakesBucket": {"Fn::Equals": [{"Ref": MAKE_BUCKET}, "yes"]}},
        "Resources": {
            "Bucket": _bucket(names),
            "DeviceRole": _role(names.devices, "credentials.iot.amazonaws.com", []),
            "DeviceAccess": {
                "Type": "AWS::IAM::ManagedPolicy",
                "DependsOn": "DeviceRole",
                "Properties": {
                    "ManagedPolicyName": names.devices,
                    "PolicyDocument": _document(device_statements(names)),
                    "Roles": [names.devices, *settings.device_roles],
                },
            },
            "DeviceRoleAlias": {
                "Type": "AWS::IoT::RoleAlias",
                "DependsOn": "DeviceRole",
                "Properties": {
                    "RoleAlias": names.devices,
                    "RoleArn": _iam(f"role/{names.devices}"),
                },
            },
            "DevicePolicy": _policy(names.devices, iot_statements(names)),
            "HotLog": {
                "Type": "AWS::Logs::LogGroup",
                "Properties": {"LogGroupName": names.hot_log, "RetentionInDays": _LOG_DAYS},
            },
            "HotRole": _role(f"{names.prefix}-hot", "iot.amazonaws.com", _hot_statements(names)),
            "HotRule": {
                "Type": "AWS::IoT::TopicRule",
                "DependsOn": ["HotLog", "HotRole"],
                "Properties": {"RuleName": names.hot_rule, "TopicRulePayload": _hot_rule(names)},
            },
            **more,
        },
        "Outputs": {INDEXING: {"Value": {"Ref": INDEXING}}},
    }


def _provisioning(names: Names, settings: AwsSettings) -> dict[str, Any]:
    """What lets devices register themselves."""
    group, hook = str(settings.provision_group), settings.provision_hook
    role = f"{names.prefix}-provisioning"
    # What fleet provisioning calls; AWS keeps this one.
    policy = _sub("arn:${AWS::Partition}:iam::aws:policy/service-role/AWSIoTThingsRegistration")
    made = _role(role, "iot.amazonaws.com", [])
    made["Properties"]["ManagedPolicyArns"] = [policy]
    core = _allowed(provisioning.core_resources(_THING))
    core.append({"Effect": "Allow", "Action": [*provisioning.CORE_ACTIONS], "Resource": "*"})
    template: dict[str, Any] = {
        "TemplateName": names.provisioning,
        "Enabled": True,
        "ProvisioningRoleArn": _iam(f"role/{role}"),
        "TemplateBody": provisioning.template_body(names, group),
    }
    if hook is not None:
        template["PreProvisioningHook"] = {"TargetArn": hook, "PayloadVersion": "2020-04-01"}
    return {
        "CorePolicy": _policy(names.cores, core),
        "ClaimPolicy": _policy(names.claim, _allowed(provisioning.claim_resources(names))),
        "ProvisioningRole": made,
        "ProvisioningTemplate": {
            "Type": "AWS::IoT::ProvisioningTemplate",
            "DependsOn": ["ProvisioningRole", "CorePolicy"],
            "Properties": template,
        },
    }


def _allowed(granted: Iterable[tuple[str, tuple[str, ...]]]) -> list[dict[str, Any]]:
    return [
        {"Effect": "Allow", "Action": action, "Resource": [_iot(one) for one in resources]}
        for action, resources in granted
    ]


def _policy(name: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    properties = {"PolicyName": name, "PolicyDocument": _document(statements)}
    return {"Type": "AWS::IoT::Policy", "Properties": properties}


def _bucket(names: Names) -> dict[str, Any]:
    """Private, encrypted by S3 itself; uploads that nobody goes on with end after a week."""
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return {
        "Type": "AWS::S3::Bucket",
        "Condition": "MakesBucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": names.bucket,
            "PublicAccessBlockConfiguration": dict.fromkeys(closed, True),
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "LifecycleConfiguration": {
                "Rules": [
                    {
                        "Id": "edgefleet-uploads",
                        "Status": "Enabled",
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                    }
                ]
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
    return _allowed(
        (
            ("iot:Publish", (f"topic/{shadow}", f"topic/{names.hot_topic(_THING)}")),
            ("iot:Subscribe", (f"topicfilter/{invoke}",)),
            ("iot:Receive", (f"topic/{invoke}",)),
            ("iot:AssumeRoleWithCertificate", (f"rolealias/{names.devices}",)),
        )
    )


def _hot_statements(names: Names) -> list[dict[str, Any]]:
    """What the rule may do: store alarms, and log those that it couldn't store.

    https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-logs-rule-action.html
    """
    where = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group"
    return [
        {
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": _object(names, f"{names.devices_folder('*')}hot/*"),
        },
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            "Resource": _sub(f"{where}:{names.hot_log}:*"),
        },
    ]


def _hot_rule(names: Names) -> dict[str, Any]:
    topic = f"{names.prefix}/devices/+/hot"
    key = f"{names.prefix}/devices/${{topic(3)}}/hot/${{timestamp()}}-${{newuuid()}}.json"
    role = _iam(f"role/{names.prefix}-hot")
    return {
        "Sql": f"SELECT * FROM '{topic}'",  # noqa: S608 - no database, and our own name
        "AwsIotSqlVersion": "2016-03-23",
        "RuleDisabled": False,
        "Actions": [{"S3": {"BucketName": names.bucket, "Key": key, "RoleArn": role}}],
        "ErrorAction": {"CloudwatchLogs": {"LogGroupName": names.hot_log, "RoleArn": role}},
    }


def _role(name: str, service: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    properties: dict[str, Any] = {
        "RoleName": name,
        "AssumeRolePolicyDocument": _document([trust]),
    }
    if statements:
        policy = {"PolicyName": "edgefleet", "PolicyDocument": _document(statements)}
        properties["Policies"] = [policy]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


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
