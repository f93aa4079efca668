"""Proves permissions with calls that change nothing, one for each action.

A call is refused for want of permission before AWS looks at what it asks for. So each asks for
something that isn't there, or that can't be: whatever else AWS answers, the permission is there.
For an action without such a call nothing is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import Proof
from edgefleet_aws.errors import code_of, translate
from edgefleet_aws.names import SHADOW, Names
from edgefleet_aws.permissions import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

NOBODY = "edgefleet-doctor-asks"
"""Name of what isn't there."""
_NO_ETAG = f'"{"0" * 32}"'
_NO_NUMBER = "00000000-0000-0000-0000-000000000000"
_NO_ROLE = f"arn:aws:iam::{'0' * 12}:role/{NOBODY}"
_TOKEN = "0" * 32  # of a request that is refused each time
_NO_PROOF = (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ThrottledError,
    UnavailableError,
)
_UNTRIED = {
    "iam:PassRole": "a run that starts would be the proof",
    "sagemaker:CreateCompilationJob": "a compilation that starts would be the proof",
    "s3:DeleteBucket": "only a teardown with --data needs it",
    "sagemaker:CreateModelPackageGroup": "the first push of a model is the proof",
}


class _Asked(NamedTuple):
    """What calls are made with."""

    clients: Clients
    settings: AwsSettings
    names: Names
    account: str
    """Partition, region and account as ARNs have them: ``aws:{}:eu-central-1:123456789012``."""

    @property
    def s3(self) -> Any:  # noqa: ANN401 - operations beyond the slice that the provider uses
        return self.clients.s3

    @property
    def sagemaker(self) -> Any:  # noqa: ANN401 - likewise
        return self.clients.sagemaker

    @property
    def iot(self) -> Any:  # noqa: ANN401 - likewise
        return self.clients.iot

    @property
    def stacks(self) -> Any:  # noqa: ANN401 - likewise
        return self.clients.cloudformation

    @property
    def at(self) -> dict[str, str]:
        key = f"{self.names.prefix}/state/{NOBODY}"
        return {"Bucket": self.settings.bucket, "Key": key}

    @property
    def in_bucket(self) -> dict[str, str]:
        return {"Bucket": self.settings.bucket, "Prefix": f"{self.names.prefix}/"}

    @property
    def group(self) -> dict[str, str]:
        return {"thingGroupName": NOBODY}

    @property
    def shadow(self) -> dict[str, str]:
        return {"thingName": NOBODY, "shadowName": SHADOW}

    @property
    def component(self) -> str:
        return f"arn:{self.account.format('greengrass')}:components:{NOBODY}:versions:0.0.0"

    @property
    def package(self) -> str:
        return f"arn:{self.account.format('sagemaker')}:model-package/{NOBODY}/1"

    @property
    def execution(self) -> str:
        return f"arn:{self.account.format('sagemaker')}:pipeline/{NOBODY}/execution/{'0' * 12}"

    @property
    def thing_group(self) -> str:
        return f"arn:{self.account.format('iot')}:thinggroup/{NOBODY}"


def prove(clients: Clients, settings: AwsSettings, parts: tuple[str, ...]) -> Iterator[Proof]:
    """Try what parts need, an action at a time.

    Args:
        clients: to reach AWS with.
        settings: of the fleet.
        parts: names in `OPERATOR`.
    """
    me = clients.sts.get_caller_identity()
    partition, region = str(me["Arn"]).split(":")[1], clients.sts.meta.region_name
    account = f"{partition}:{{}}:{region}:{me['Account']}"
    asked = _Asked(clients, settings, Names(settings), account)
    for part in parts:
        for action in OPERATOR[part]:
            call = _CALLS.get(action)
            if call is None:
                yield Proof(part, action, tried=False, problem=_UNTRIED[action])
            else:
                yield Proof(part, action, problem=_problem(call, asked))


def _problem(call: Callable[[_Asked], object], asked: _Asked) -> str | None:
    try:
        call(asked)
    except Exception as error:
        ours = translate(error)
        if ours is None and not code_of(error):
            raise
        if code_of(error) == "NoSuchBucket" or isinstance(ours, _NO_PROOF):
            return str(error) if ours is None else ours.message
    return None


def _refused_training(asked: _Asked) -> object:
    """Ask for a job with less time to wait than to run, which SageMaker takes from nobody."""
    role = asked.settings.training_role or _NO_ROLE
    output = f"{asked.settings.root}/training/{NOBODY}/"
    return asked.sagemaker.create_training_job(
        TrainingJobName=NOBODY,
        RoleArn=role,
        AlgorithmSpecification={
            "TrainingImage": asked.settings.training_image or NOBODY,
            "TrainingInputMode": "File",
        },
        OutputDataConfig={"S3OutputPath": output},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 2, "MaxWaitTimeInSeconds": 1},
    )


_LOGS = "/aws/sagemaker/TrainingJobs"
_CALLS: dict[str, Callable[[_Asked], object]] = {
    "cloudformation:CreateStack": lambda a: a.stacks.create_stack(
        StackName=NOBODY, TemplateBody="{}"
    ),
    "cloudformation:DeleteStack": lambda a: a.stacks.delete_stack(StackName=NOBODY),
    "cloudformation:DescribeStacks": lambda a: a.stacks.describe_stacks(StackName=a.names.stack),
    "cloudformation:GetTemplate": lambda a: a.stacks.get_template(StackName=NOBODY),
    "cloudformation:UpdateStack": lambda a: a.stacks.update_stack(
        StackName=NOBODY, UsePreviousTemplate=True
    ),
    "greengrass:CreateComponentVersion": lambda a: a.clients.greengrass.create_component_version(
        inlineRecipe=b"{}"
    ),
    "greengrass:CreateDeployment": lambda a: a.clients.greengrass.create_deployment(
        targetArn=a.thing_group
    ),
    "greengrass:DescribeComponent": lambda a: a.clients.greengrass.describe_component(
        arn=a.component
    ),
    "greengrass:GetComponent": lambda a: a.clients.greengrass.get_component(arn=a.component),
    "greengrass:GetCoreDevice": lambda a: a.clients.greengrass.get_core_device(
        coreDeviceThingName=NOBODY
    ),
    "greengrass:GetDeployment": lambda a: a.clients.greengrass.get_deployment(
        deploymentId=_NO_NUMBER
    ),
    "greengrass:ListComponents": lambda a: next(
        iter(a.clients.greengrass.get_paginator("list_components").paginate(maxResults=1)), None
    ),
    "greengrass:ListDeployments": lambda a: a.clients.greengrass.list_deployments(maxResults=1),
    "greengrass:ListEffectiveDeployments": lambda a: (
        a.clients.greengrass.list_effective_deployments(coreDeviceThingName=NOBODY)
    ),
    "iot:AddThingToThingGroup": lambda a: a.iot.add_thing_to_thing_group(
        **a.group, thingName=NOBODY
    ),
    "iot:AttachPolicy": lambda a: a.iot.attach_policy(policyName=NOBODY, target=a.thing_group),
    "iot:CreateThing": lambda a: a.iot.create_thing(thingName=NOBODY, thingTypeName=NOBODY),
    "iot:CreateThingGroup": lambda a: a.iot.create_thing_group(
        **a.group, parentGroupName=f"{NOBODY}-parent"
    ),
    "iot:DeleteThingShadow": lambda a: a.clients.iot_data.delete_thing_shadow(**a.shadow),
    "iot:DescribeEndpoint": lambda a: a.iot.describe_endpoint(endpointType="iot:Data-ATS"),
    "iot:DescribeJob": lambda a: a.iot.describe_job(jobId=NOBODY),
    "iot:DescribeThing": lambda a: a.iot.describe_thing(thingName=NOBODY),
    "iot:DescribeThingGroup": lambda a: a.iot.describe_thing_group(**a.group),
    "iot:DetachPolicy": lambda a: a.iot.detach_policy(policyName=NOBODY, target=a.thing_group),
    "iot:GetIndexingConfiguration": lambda a: a.iot.get_indexing_configuration(),
    "iot:GetThingShadow": lambda a: a.clients.iot_data.get_thing_shadow(**a.shadow),
    "iot:ListThingGroups": lambda a: a.iot.list_thing_groups(maxResults=1),
    "iot:ListThingGroupsForThing": lambda a: a.iot.list_thing_groups_for_thing(thingName=NOBODY),
    "iot:ListThingsInThingGroup": lambda a: a.iot.list_things_in_thing_group(**a.group),
    # Nobody listens there: a device hears its own topic only.
    "iot:Publish": lambda a: a.clients.iot_data.publish(
        topic=a.names.invoke_topic(NOBODY), payload=b"{}"
    ),
    "iot:RemoveThingFromThingGroup": lambda a: a.iot.remove_thing_from_thing_group(
        **a.group, thingName=NOBODY
    ),
    "iot:TagResource": lambda a: a.iot.tag_resource(resourceArn=a.thing_group, tags=a.names.tags),
    "iot:UpdateIndexingConfiguration": lambda a: a.iot.update_indexing_configuration(),
    "iot:UpdateThingShadow": lambda a: a.clients.iot_data.update_thing_shadow(
        **a.shadow, payload=b"{"
    ),
    "logs:DescribeLogStreams": lambda a: a.clients.logs.describe_log_streams(
        logGroupName=_LOGS, limit=1
    ),
    "logs:GetLogEvents": lambda a: a.clients.logs.get_log_events(
        logGroupName=_LOGS, logStreamName=NOBODY, limit=1
    ),
    "s3:AbortMultipartUpload": lambda a: a.s3.abort_multipart_upload(**a.at, UploadId=NOBODY),
    "s3:DeleteObject": lambda a: a.s3.delete_object(**a.at, IfMatch=_NO_ETAG),
    "s3:DeleteObjectVersion": lambda a: a.s3.delete_object(**a.at, VersionId="null"),
    "s3:GetObject": lambda a: a.s3.get_object(**a.at),
    "s3:ListBucket": lambda a: a.s3.list_objects_v2(**a.in_bucket, MaxKeys=1),
    "s3:ListBucketMultipartUploads": lambda a: a.s3.list_multipart_uploads(
        **a.in_bucket, MaxUploads=1
    ),
    "s3:ListBucketVersions": lambda a: a.s3.list_object_versions(**a.in_bucket, MaxKeys=1),
    "s3:ListMultipartUploadParts": lambda a: a.s3.list_parts(**a.at, UploadId=NOBODY),
    "s3:PutObject": lambda a: a.s3.put_object(**a.at, Body=b"", IfMatch=_NO_ETAG),
    "sagemaker:CreateModelPackage": lambda a: a.sagemaker.create_model_package(
        ModelPackageGroupName=NOBODY
    ),
    # Refused: it holds no definition.
    "sagemaker:CreatePipeline": lambda a: a.sagemaker.create_pipeline(
        PipelineName=NOBODY,
        PipelineDefinition="{}",
        ClientRequestToken=_TOKEN,
        RoleArn=a.settings.pipeline_role or _NO_ROLE,
    ),
    "sagemaker:CreateTrainingJob": _refused_training,
    "sagemaker:DeleteModelPackage": lambda a: a.sagemaker.delete_model_package(
        ModelPackageName=a.package
    ),
    "sagemaker:DescribeModelPackage": lambda a: a.sagemaker.describe_model_package(
        ModelPackageName=a.package
    ),
    "sagemaker:DescribeCompilationJob": lambda a: a.sagemaker.describe_compilation_job(
        CompilationJobName=NOBODY
    ),
    "sagemaker:DescribePipeline": lambda a: a.sagemaker.describe_pipeline(PipelineName=NOBODY),
    "sagemaker:DescribePipelineExecution": lambda a: a.sagemaker.describe_pipeline_execution(
        PipelineExecutionArn=a.execution
    ),
    "sagemaker:DescribeTrainingJob": lambda a: a.sagemaker.describe_training_job(
        TrainingJobName=NOBODY
    ),
    "sagemaker:ListModelPackages": lambda a: a.sagemaker.list_model_packages(
        ModelPackageGroupName=NOBODY, MaxResults=1
    ),
    "sagemaker:ListPipelineExecutionSteps": lambda a: a.sagemaker.list_pipeline_execution_steps(
        PipelineExecutionArn=a.execution
    ),
    "sagemaker:ListTrainingJobs": lambda a: a.sagemaker.list_training_jobs(MaxResults=1),
    "sagemaker:StartPipelineExecution": lambda a: a.sagemaker.start_pipeline_execution(
        PipelineName=NOBODY, ClientRequestToken=_TOKEN
    ),
    "sagemaker:StopCompilationJob": lambda a: a.sagemaker.stop_compilation_job(
        CompilationJobName=NOBODY
    ),
    "sagemaker:StopPipelineExecution": lambda a: a.sagemaker.stop_pipeline_execution(
        PipelineExecutionArn=a.execution, ClientRequestToken=_TOKEN
    ),
    "sagemaker:StopTrainingJob": lambda a: a.sagemaker.stop_training_job(TrainingJobName=NOBODY),
    "sagemaker:UpdateModelPackage": lambda a: a.sagemaker.update_model_package(
        ModelPackageArn=a.package, ModelApprovalStatus="Rejected"
    ),
    "sagemaker:UpdatePipeline": lambda a: a.sagemaker.update_pipeline(PipelineName=NOBODY),
}
