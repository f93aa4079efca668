"""What each part of EdgeFleet must be allowed on AWS: one list for page, doctor and tests.

Pure, and knows no vendor SDK. A test runs every part with exactly these permissions on the mock,
and compares them with the calls that it made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet_aws.names import Names

# Where the IAM action isn't the operation's name: "Actions, resources, and condition keys for
# Amazon S3", https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
S3_ACTIONS: dict[str, tuple[str, ...]] = {
    "HeadObject": ("s3:GetObject",),
    "GetObject": ("s3:GetObject",),
    "PutObject": ("s3:PutObject",),
    "DeleteObject": ("s3:DeleteObject",),
    "DeleteObjects": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    "CreateMultipartUpload": ("s3:PutObject",),
    "UploadPart": ("s3:PutObject",),
    "CompleteMultipartUpload": ("s3:PutObject",),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "ListParts": ("s3:ListMultipartUploadParts",),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "ListObjectsV2": ("s3:ListBucket",),
    "ListObjectVersions": ("s3:ListBucketVersions",),
    "HeadBucket": ("s3:ListBucket",),
    "DeleteBucket": ("s3:DeleteBucket",),
}
_OTHERS: dict[str, tuple[str, ...]] = {
    "iot.CreateThingGroup": ("iot:CreateThingGroup", "iot:TagResource"),
    "sagemaker.CreateCompilationJob": ("sagemaker:CreateCompilationJob", "iam:PassRole"),
    "sagemaker.CreatePipeline": ("sagemaker:CreatePipeline", "iam:PassRole"),
    "sagemaker.CreateTrainingJob": ("sagemaker:CreateTrainingJob", "iam:PassRole"),
    "sts.GetCallerIdentity": (),  # nobody needs leave to ask who they are
}
# Where IAM's prefix isn't boto3's name of the service.
_PREFIXES = {"greengrassv2": "greengrass", "iot-data": "iot"}
_OF_BUCKET = {
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
    "s3:DeleteBucket",
}

OPERATOR: dict[str, tuple[str, ...]] = {
    "registry": (
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
        "sagemaker:CreateModelPackage",
        "sagemaker:CreateModelPackageGroup",
        "sagemaker:DeleteModelPackage",
        "sagemaker:DescribeModelPackage",
        "sagemaker:ListModelPackages",
        "sagemaker:UpdateModelPackage",
    ),
    "state": ("s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"),
    "trainer": (
        "iam:PassRole",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
        "sagemaker:CreateTrainingJob",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:ListTrainingJobs",
        "sagemaker:StopTrainingJob",
    ),
    "automating": (
        "iam:PassRole",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "s3:PutObject",
        "sagemaker:CreatePipeline",
        "sagemaker:DescribePipeline",
        "sagemaker:DescribePipelineExecution",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:ListPipelineExecutionSteps",
        "sagemaker:StartPipelineExecution",
        "sagemaker:StopPipelineExecution",
        "sagemaker:UpdatePipeline",
    ),
    "compiling": (
        "iam:PassRole",
        "s3:GetObject",
        "s3:PutObject",
        "sagemaker:CreateCompilationJob",
        "sagemaker:DescribeCompilationJob",
        "sagemaker:StopCompilationJob",
    ),
    "telemetry": ("s3:GetObject", "s3:ListBucket"),
    "receiving": ("s3:PutObject",),
    "deployer": (
        "greengrass:CreateComponentVersion",
        "greengrass:CreateDeployment",
        "greengrass:DescribeComponent",
        "greengrass:GetCoreDevice",
        "greengrass:GetDeployment",
        "greengrass:ListDeployments",
        "greengrass:ListEffectiveDeployments",
        "iot:AddThingToThingGroup",
        "iot:CreateThing",
        "iot:CreateThingGroup",
        "iot:DeleteThingShadow",
        "iot:DescribeJob",
        "iot:DescribeThing",
        "iot:DescribeThingGroup",
        "iot:GetThingShadow",
        "iot:ListThingGroups",
        "iot:ListThingGroupsForThing",
        "iot:ListThingsInThingGroup",
        "iot:Publish",
        "iot:RemoveThingFromThingGroup",
        "iot:TagResource",
        "iot:UpdateThingShadow",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:PutObject",
    ),
    "install": (
        "cloudformation:CreateStack",
        "cloudformation:DeleteStack",
        "cloudformation:DescribeStacks",
        "cloudformation:GetTemplate",
        "cloudformation:UpdateStack",
        "greengrass:CreateComponentVersion",
        "greengrass:CreateDeployment",
        "greengrass:GetComponent",
        "greengrass:GetDeployment",
        "greengrass:ListComponents",
        "greengrass:ListDeployments",
        "iot:AddThingToThingGroup",
        "iot:AttachPolicy",
        "iot:CreateThingGroup",
        "iot:DescribeEndpoint",
        "iot:DescribeThingGroup",
        "iot:DetachPolicy",
        "iot:GetIndexingConfiguration",
        "iot:ListThingsInThingGroup",
        "iot:TagResource",
        "iot:UpdateIndexingConfiguration",
        "s3:DeleteBucket",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucketVersions",
        "s3:PutObject",
    ),
}
"""What an operator of each part must be allowed."""

TRAINING = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
"""What a training job's role must be allowed, beside the bucket. Of the API's calls it makes none:
SageMaker reads the channels, writes outputs and logs in its name.

https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
"""

STACK: dict[str, tuple[str, ...]] = {
    "AWS::IAM::ManagedPolicy": (
        "iam:AttachRolePolicy",
        "iam:CreatePolicy",
        "iam:CreatePolicyVersion",
        "iam:DeletePolicy",
        "iam:DeletePolicyVersion",
        "iam:DetachRolePolicy",
        "iam:GetPolicy",
        "iam:GetPolicyVersion",
        "iam:ListEntitiesForPolicy",
        "iam:ListPolicyVersions",
    ),
    "AWS::IAM::Role": (
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
        "iam:PutRolePolicy",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
    ),
    "AWS::IoT::Policy": (
        "iot:CreatePolicy",
        "iot:CreatePolicyVersion",
        "iot:DeletePolicy",
        "iot:DeletePolicyVersion",
        "iot:GetPolicy",
        "iot:ListPolicyVersions",
        "iot:ListTagsForResource",
        "iot:SetDefaultPolicyVersion",
    ),
    "AWS::IoT::ProvisioningTemplate": (
        "iam:PassRole",
        "iot:CreateProvisioningTemplate",
        "iot:CreateProvisioningTemplateVersion",
        "iot:DeleteProvisioningTemplate",
        "iot:DeleteProvisioningTemplateVersion",
        "iot:DescribeProvisioningTemplate",
        "iot:ListProvisioningTemplateVersions",
        "iot:UpdateProvisioningTemplate",
    ),
    "AWS::IoT::RoleAlias": (
        "iam:PassRole",
        "iot:CreateRoleAlias",
        "iot:DeleteRoleAlias",
        "iot:DescribeRoleAlias",
        "iot:UpdateRoleAlias",
    ),
    "AWS::IoT::TopicRule": (
        "iam:PassRole",
        "iot:CreateTopicRule",
        "iot:DeleteTopicRule",
        "iot:GetTopicRule",
        "iot:ReplaceTopicRule",
    ),
    "AWS::Logs::LogGroup": (
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        "logs:DescribeLogGroups",
        "logs:PutRetentionPolicy",
    ),
    "AWS::S3::Bucket": (
        "s3:CreateBucket",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutLifecycleConfiguration",
    ),
}
"""What CloudFormation does in the installer's name, by type of resource: the permissions of each
type's handlers as far as our properties use them. Read in the types' schemas, not tried."""


def actions_of(service: str, operation: str) -> tuple[str, ...]:
    """The IAM actions that a call needs.

    Args:
        service: boto3's name of it.
        operation: as the service's model calls it.
    """
    if service == "s3":
        return S3_ACTIONS.get(operation, (f"s3:{operation}",))
    named = f"{_PREFIXES.get(service, service)}:{operation}"
    return _OTHERS.get(f"{service}.{operation}", (named,))


def policy(names: Names, actions: tuple[str, ...]) -> dict[str, Any]:
    """The least policy for actions: in S3 below the fleet's prefix, elsewhere on all resources."""
    bucket = f"arn:aws:s3:::{names.bucket}"
    places = {
        f"{bucket}/{names.prefix}/*": [
            one for one in actions if one.startswith("s3:") and one not in _OF_BUCKET
        ],
        bucket: [one for one in actions if one in _OF_BUCKET],
        "*": [one for one in actions if not one.startswith("s3:")],
    }
    statements = [
        {"Effect": "Allow", "Action": found, "Resource": resource}
        for resource, found in places.items()
        if found
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def training_policy(names: Names) -> dict[str, Any]:
    """The least policy of the role that training jobs run under."""
    bucket = f"arn:aws:s3:::{names.bucket}"
    folder = f"{bucket}/{names.prefix}/training/*"
    logs = "arn:aws:logs:*:*:log-group:/aws/sagemaker/TrainingJobs*"
    statements = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": folder},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": bucket},
        {"Effect": "Allow", "Action": [*TRAINING], "Resource": logs},
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def readable(document: dict[str, Any]) -> str:
    """A policy as people read it: an action a line."""
    return json.dumps(document, indent=2)
