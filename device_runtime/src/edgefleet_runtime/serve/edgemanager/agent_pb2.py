"""Messages of agent.proto. Made by device_runtime/tools/generate_pb2.py; edit the proto."""

from google.protobuf import descriptor_pool, message_factory

# Clients have the same names in the default pool, and both may be in one process.
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(
    b'\n\x0bagent.proto\x12\x12AWS.SageMaker.Edge"u\n\x0eTensorMetadata\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x129\n\tdata_'
    b'type\x18\x02 \x01(\x0e2\x1c.AWS.SageMaker.Edge.DataTypeR\x08dataType\x12\x14\n\x05shape\x18\x03 \x03(\x05R\x05shape"_\n\x12Shar'
    b'edMemoryHandle\x12\x12\n\x04size\x18\x01 \x01(\x04R\x04size\x12\x16\n\x06offset\x18\x02 \x01(\x04R\x06offset\x12\x1d\n\nsegment_id\x18\x03 \x01(\x04R\t'
    b'segmentId"\xd8\x01\n\x06Tensor\x12K\n\x0ftensor_metadata\x18\x01 \x01(\x0b2".AWS.SageMaker.Edge.TensorMetadat'
    b'aR\x0etensorMetadata\x12\x1d\n\tbyte_data\x18\x04 \x01(\x0cH\x00R\x08byteData\x12Z\n\x14shared_memory_handle\x18\x05 \x01(\x0b2&'
    b'.AWS.SageMaker.Edge.SharedMemoryHandleH\x00R\x12sharedMemoryHandleB\x06\n\x04data"Z\n\x0ePredictR'
    b'equest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x124\n\x07tensors\x18\x02 \x03(\x0b2\x1a.AWS.SageMaker.Edge.TensorR\x07tensors'
    b'"G\n\x0fPredictResponse\x124\n\x07tensors\x18\x01 \x03(\x0b2\x1a.AWS.SageMaker.Edge.TensorR\x07tensors"\xe3\x01\n\x05Mo'
    b'del\x12\x10\n\x03url\x18\x01 \x01(\tR\x03url\x12\x12\n\x04name\x18\x02 \x01(\tR\x04name\x12X\n\x16input_tensor_metadatas\x18\x03 \x03(\x0b2".AWS.'
    b'SageMaker.Edge.TensorMetadataR\x14inputTensorMetadatas\x12Z\n\x17output_tensor_metadatas\x18\x04'
    b' \x03(\x0b2".AWS.SageMaker.Edge.TensorMetadataR\x15outputTensorMetadatas"8\n\x10LoadModelRequ'
    b'est\x12\x10\n\x03url\x18\x01 \x01(\tR\x03url\x12\x12\n\x04name\x18\x02 \x01(\tR\x04name"D\n\x11LoadModelResponse\x12/\n\x05model\x18\x01 \x01(\x0b2\x19.'
    b'AWS.SageMaker.Edge.ModelR\x05model"(\n\x12UnLoadModelRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"\x15\n\x13UnL'
    b'oadModelResponse"\x13\n\x11ListModelsRequest"G\n\x12ListModelsResponse\x121\n\x06models\x18\x01 \x03(\x0b2\x19.AW'
    b'S.SageMaker.Edge.ModelR\x06models"*\n\x14DescribeModelRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"H\n\x15De'
    b'scribeModelResponse\x12/\n\x05model\x18\x01 \x01(\x0b2\x19.AWS.SageMaker.Edge.ModelR\x05model"\xdf\x01\n\x0cAuxilar'
    b'yData\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x128\n\x08encoding\x18\x02 \x01(\x0e2\x1c.AWS.SageMaker.Edge.EncodingR\x08encod'
    b'ing\x12\x1d\n\tbyte_data\x18\x03 \x01(\x0cH\x00R\x08byteData\x12Z\n\x14shared_memory_handle\x18\x04 \x01(\x0b2&.AWS.SageMaker'
    b'.Edge.SharedMemoryHandleH\x00R\x12sharedMemoryHandleB\x06\n\x04data";\n\tTimestamp\x12\x18\n\x07seconds\x18\x01'
    b' \x01(\x03R\x07seconds\x12\x14\n\x05nanos\x18\x02 \x01(\x05R\x05nanos"\x9c\x03\n\x12CaptureDataRequest\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\t'
    b'modelName\x12\x1d\n\ncapture_id\x18\x02 \x01(\tR\tcaptureId\x12N\n\x13inference_timestamp\x18\x03 \x01(\x0b2\x1d.AWS.Sage'
    b'Maker.Edge.TimestampR\x12inferenceTimestamp\x12?\n\rinput_tensors\x18\x04 \x03(\x0b2\x1a.AWS.SageMaker.'
    b'Edge.TensorR\x0cinputTensors\x12A\n\x0eoutput_tensors\x18\x05 \x03(\x0b2\x1a.AWS.SageMaker.Edge.TensorR\ro'
    b'utputTensors\x128\n\x06inputs\x18\x06 \x03(\x0b2 .AWS.SageMaker.Edge.AuxilaryDataR\x06inputs\x12:\n\x07output'
    b's\x18\x07 \x03(\x0b2 .AWS.SageMaker.Edge.AuxilaryDataR\x07outputs"\x15\n\x13CaptureDataResponse"<\n\x1bGet'
    b'CaptureDataStatusRequest\x12\x1d\n\ncapture_id\x18\x01 \x01(\tR\tcaptureId"]\n\x1cGetCaptureDataStatusR'
    b'esponse\x12=\n\x06status\x18\x01 \x01(\x0e2%.AWS.SageMaker.Edge.CaptureDataStatusR\x06status*]\n\x08DataTy'
    b'pe\x12\t\n\x05UINT8\x10\x00\x12\t\n\x05INT16\x10\x01\x12\t\n\x05INT32\x10\x02\x12\t\n\x05INT64\x10\x03\x12\x0b\n\x07FLOAT16\x10\x04\x12\x0b\n\x07FLOAT32\x10\x05\x12\x0b\n\x07FLOA'
    b'T64\x10\x06*3\n\x08Encoding\x12\x07\n\x03CSV\x10\x00\x12\x08\n\x04JSON\x10\x01\x12\x08\n\x04NONE\x10\x02\x12\n\n\x06BASE64\x10\x03*M\n\x11CaptureDataStatus\x12'
    b'\x0b\n\x07FAILURE\x10\x00\x12\x0b\n\x07SUCCESS\x10\x01\x12\x0f\n\x0bIN_PROGRESS\x10\x02\x12\r\n\tNOT_FOUND\x10\x032\xb3\x05\n\x05Agent\x12R\n\x07Predict\x12"'
    b'.AWS.SageMaker.Edge.PredictRequest\x1a#.AWS.SageMaker.Edge.PredictResponse\x12X\n\tLoadM'
    b'odel\x12$.AWS.SageMaker.Edge.LoadModelRequest\x1a%.AWS.SageMaker.Edge.LoadModelRespons'
    b"e\x12^\n\x0bUnLoadModel\x12&.AWS.SageMaker.Edge.UnLoadModelRequest\x1a'.AWS.SageMaker.Edge.Un"
    b'LoadModelResponse\x12[\n\nListModels\x12%.AWS.SageMaker.Edge.ListModelsRequest\x1a&.AWS.Sag'
    b'eMaker.Edge.ListModelsResponse\x12d\n\rDescribeModel\x12(.AWS.SageMaker.Edge.DescribeMod'
    b'elRequest\x1a).AWS.SageMaker.Edge.DescribeModelResponse\x12^\n\x0bCaptureData\x12&.AWS.SageMa'
    b"ker.Edge.CaptureDataRequest\x1a'.AWS.SageMaker.Edge.CaptureDataResponse\x12y\n\x14GetCaptu"
    b'reDataStatus\x12/.AWS.SageMaker.Edge.GetCaptureDataStatusRequest\x1a0.AWS.SageMaker.Ed'
    b'ge.GetCaptureDataStatusResponseb\x06proto3'
)
DESCRIPTOR = _pool.FindFileByName("agent.proto")
TensorMetadata = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.TensorMetadata"))
SharedMemoryHandle = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.SharedMemoryHandle"))
Tensor = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.Tensor"))
PredictRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.PredictRequest"))
PredictResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.PredictResponse"))
Model = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.Model"))
LoadModelRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.LoadModelRequest"))
LoadModelResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.LoadModelResponse"))
UnLoadModelRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.UnLoadModelRequest"))
UnLoadModelResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.UnLoadModelResponse"))
ListModelsRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.ListModelsRequest"))
ListModelsResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.ListModelsResponse"))
DescribeModelRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.DescribeModelRequest"))
DescribeModelResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.DescribeModelResponse"))
AuxilaryData = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.AuxilaryData"))
Timestamp = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.Timestamp"))
CaptureDataRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.CaptureDataRequest"))
CaptureDataResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.CaptureDataResponse"))
GetCaptureDataStatusRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.GetCaptureDataStatusRequest"))
GetCaptureDataStatusResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("AWS.SageMaker.Edge.GetCaptureDataStatusResponse"))
UINT8 = 0
INT16 = 1
INT32 = 2
INT64 = 3
FLOAT16 = 4
FLOAT32 = 5
FLOAT64 = 6
CSV = 0
JSON = 1
NONE = 2
BASE64 = 3
FAILURE = 0
SUCCESS = 1
IN_PROGRESS = 2
NOT_FOUND = 3
