"""Messages of inference.proto. Made by device_runtime/tools/generate_pb2.py; edit the proto."""

from google.protobuf import descriptor_pool, message_factory

# Clients have the same names in the default pool, and both may be in one process.
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(
    b'\n\x0finference.proto\x12\tinference"\x13\n\x11ServerLiveRequest"(\n\x12ServerLiveResponse\x12\x12\n\x04live\x18'
    b'\x01 \x01(\x08R\x04live"\x14\n\x12ServerReadyRequest"+\n\x13ServerReadyResponse\x12\x14\n\x05ready\x18\x01 \x01(\x08R\x05ready"A'
    b'\n\x11ModelReadyRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"*\n\x12ModelReadyR'
    b'esponse\x12\x14\n\x05ready\x18\x01 \x01(\x08R\x05ready"\x17\n\x15ServerMetadataRequest"f\n\x16ServerMetadataResponse'
    b'\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x1e\n\nextensions\x18\x03 \x03(\tR\nextensions"D'
    b'\n\x14ModelMetadataRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"\xe0\x03\n\x15ModelMe'
    b'tadataResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08versions\x18\x02 \x03(\tR\x08versions\x12\x1a\n\x08platform\x18\x03 \x01(\t'
    b'R\x08platform\x12G\n\x06inputs\x18\x04 \x03(\x0b2/.inference.ModelMetadataResponse.TensorMetadataR\x06inp'
    b'uts\x12I\n\x07outputs\x18\x05 \x03(\x0b2/.inference.ModelMetadataResponse.TensorMetadataR\x07outputs\x12P'
    b'\n\nproperties\x18\x06 \x03(\x0b20.inference.ModelMetadataResponse.PropertiesEntryR\nproperties'
    b'\x1aV\n\x0eTensorMetadata\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03('
    b'\x03R\x05shape\x1a=\n\x0fPropertiesEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\xd7\x01\n\x0eInfe'
    b'rParameter\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12!\n\x0bint64_param\x18\x02 \x01(\x03H\x00R\nint64Param\x12#'
    b'\n\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParam\x12#\n\x0cdouble_param\x18\x04 \x01(\x01H\x00R\x0bdoubleParam\x12#\n\x0cuint'
    b'64_param\x18\x05 \x01(\x04H\x00R\x0buint64ParamB\x12\n\x10parameter_choice"\xc3\x02\n\x13InferTensorContents\x12#\n\rboo'
    b'l_contents\x18\x01 \x03(\x08R\x0cboolContents\x12!\n\x0cint_contents\x18\x02 \x03(\x05R\x0bintContents\x12%\n\x0eint64_conte'
    b"nts\x18\x03 \x03(\x03R\rint64Contents\x12#\n\ruint_contents\x18\x04 \x03(\rR\x0cuintContents\x12'\n\x0fuint64_contents"
    b'\x18\x05 \x03(\x04R\x0euint64Contents\x12#\n\rfp32_contents\x18\x06 \x03(\x02R\x0cfp32Contents\x12#\n\rfp64_contents\x18\x07 \x03'
    b'(\x01R\x0cfp64Contents\x12%\n\x0ebytes_contents\x18\x08 \x03(\x0cR\rbytesContents"\x9d\x08\n\x11ModelInferRequest\x12\x1d\n'
    b'\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\tR\x0cmodelVersion\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02i'
    b'd\x12L\n\nparameters\x18\x04 \x03(\x0b2,.inference.ModelInferRequest.ParametersEntryR\nparameters\x12'
    b'E\n\x06inputs\x18\x05 \x03(\x0b2-.inference.ModelInferRequest.InferInputTensorR\x06inputs\x12Q\n\x07output'
    b's\x18\x06 \x03(\x0b27.inference.ModelInferRequest.InferRequestedOutputTensorR\x07outputs\x12,\n\x12raw'
    b'_input_contents\x18\x07 \x03(\x0cR\x10rawInputContents\x1a\xcd\x02\n\x10InferInputTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name'
    b'\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12]\n\nparameters\x18\x04 \x03(\x0b2=.inferen'
    b'ce.ModelInferRequest.InferInputTensor.ParametersEntryR\nparameters\x12:\n\x08contents\x18\x05 '
    b'\x01(\x0b2\x1e.inference.InferTensorContentsR\x08contents\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03k'
    b'ey\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01\x1a\xf3\x01\n\x1aInferRequestedOutput'
    b'Tensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12g\n\nparameters\x18\x02 \x03(\x0b2G.inference.ModelInferRequest.Inf'
    b'erRequestedOutputTensor.ParametersEntryR\nparameters\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 '
    b'\x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01\x1aX\n\x0fParametersEntry'
    b'\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01"\xdf\x05\n\x12Mode'
    b'lInferResponse\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\tR\x0cmodelVersi'
    b'on\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02id\x12M\n\nparameters\x18\x04 \x03(\x0b2-.inference.ModelInferResponse.Parameters'
    b'EntryR\nparameters\x12I\n\x07outputs\x18\x05 \x03(\x0b2/.inference.ModelInferResponse.InferOutputTen'
    b'sorR\x07outputs\x12.\n\x13raw_output_contents\x18\x06 \x03(\x0cR\x11rawOutputContents\x1a\xd0\x02\n\x11InferOutputTens'
    b'or\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12_\n\npara'
    b'meters\x18\x04 \x03(\x0b2?.inference.ModelInferResponse.InferOutputTensor.ParametersEntryR\np'
    b'arameters\x12:\n\x08contents\x18\x05 \x01(\x0b2\x1e.inference.InferTensorContentsR\x08contents\x1aX\n\x0fParamet'
    b'ersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01\x1a'
    b'X\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05'
    b'value:\x028\x01"\x85\x01\n\x18ModelStreamInferResponse\x12#\n\rerror_message\x18\x01 \x01(\tR\x0cerrorMessage\x12D\n\x0ei'
    b'nfer_response\x18\x02 \x01(\x0b2\x1d.inference.ModelInferResponseR\rinferResponse"f\n\nModelInput\x12'
    b'\x12\n\x04name\x18\x01 \x01(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataTypeR\x08dataType\x12\x12\n\x04dims\x18\x04 '
    b'\x03(\x03R\x04dims"g\n\x0bModelOutput\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.Data'
    b'TypeR\x08dataType\x12\x12\n\x04dims\x18\x03 \x03(\x03R\x04dims"\x92\x01\n\x12ModelVersionPolicy\x12>\n\x06latest\x18\x01 \x01(\x0b2$.infe'
    b'rence.ModelVersionPolicy.LatestH\x00R\x06latest\x1a+\n\x06Latest\x12!\n\x0cnum_versions\x18\x01 \x01(\rR\x0bnumVe'
    b'rsionsB\x0f\n\rpolicy_choice"3\n\x0eModelParameter\x12!\n\x0cstring_value\x18\x01 \x01(\tR\x0bstringValue"\xa9\x03\n'
    b'\x0fModelEnsembling\x123\n\x04step\x18\x01 \x03(\x0b2\x1f.inference.ModelEnsembling.StepR\x04step\x1a\xe0\x02\n\x04Step\x12\x1d'
    b'\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\x03R\x0cmodelVersion\x12J\n\tinput_map\x18'
    b'\x03 \x03(\x0b2-.inference.ModelEnsembling.Step.InputMapEntryR\x08inputMap\x12M\n\noutput_map\x18\x04 \x03'
    b'(\x0b2..inference.ModelEnsembling.Step.OutputMapEntryR\toutputMap\x1a;\n\rInputMapEntry\x12\x10'
    b'\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01\x1a<\n\x0eOutputMapEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14'
    b'\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\xa6\x04\n\x0bModelConfig\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08platform\x18\x02 \x01(\tR\x08'
    b'platform\x12D\n\x0eversion_policy\x18\x03 \x01(\x0b2\x1d.inference.ModelVersionPolicyR\rversionPolicy\x12$'
    b'\n\x0emax_batch_size\x18\x04 \x01(\x05R\x0cmaxBatchSize\x12+\n\x05input\x18\x05 \x03(\x0b2\x15.inference.ModelInputR\x05inpu'
    b't\x12.\n\x06output\x18\x06 \x03(\x0b2\x16.inference.ModelOutputR\x06output\x12F\n\nparameters\x18\x0e \x03(\x0b2&.inferenc'
    b'e.ModelConfig.ParametersEntryR\nparameters\x12M\n\x13ensemble_scheduling\x18\x0f \x01(\x0b2\x1a.inferen'
    b'ce.ModelEnsemblingH\x00R\x12ensembleScheduling\x12\x18\n\x07backend\x18\x11 \x01(\tR\x07backend\x1aX\n\x0fParameters'
    b'Entry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.ModelParameterR\x05value:\x028\x01B\x13\n\x11'
    b'scheduling_choice"B\n\x12ModelConfigRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07ve'
    b'rsion"E\n\x13ModelConfigResponse\x12.\n\x06config\x18\x01 \x01(\x0b2\x16.inference.ModelConfigR\x06config"9\n\x11'
    b'StatisticDuration\x12\x14\n\x05count\x18\x01 \x01(\x04R\x05count\x12\x0e\n\x02ns\x18\x02 \x01(\x04R\x02ns"\xf2\x03\n\x0fInferStatistics\x126\n\x07s'
    b'uccess\x18\x01 \x01(\x0b2\x1c.inference.StatisticDurationR\x07success\x120\n\x04fail\x18\x02 \x01(\x0b2\x1c.inference.St'
    b'atisticDurationR\x04fail\x122\n\x05queue\x18\x03 \x01(\x0b2\x1c.inference.StatisticDurationR\x05queue\x12A\n\rcom'
    b'pute_input\x18\x04 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomputeInput\x12A\n\rcompute_infer\x18\x05 '
    b'\x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomputeInfer\x12C\n\x0ecompute_output\x18\x06 \x01(\x0b2\x1c.infere'
    b'nce.StatisticDurationR\rcomputeOutput\x129\n\tcache_hit\x18\x07 \x01(\x0b2\x1c.inference.StatisticDur'
    b'ationR\x08cacheHit\x12;\n\ncache_miss\x18\x08 \x01(\x0b2\x1c.inference.StatisticDurationR\tcacheMiss"\x80\x02\n'
    b'\x14InferBatchStatistics\x12\x1d\n\nbatch_size\x18\x01 \x01(\x04R\tbatchSize\x12A\n\rcompute_input\x18\x02 \x01(\x0b2\x1c.in'
    b'ference.StatisticDurationR\x0ccomputeInput\x12A\n\rcompute_infer\x18\x03 \x01(\x0b2\x1c.inference.Stati'
    b'sticDurationR\x0ccomputeInfer\x12C\n\x0ecompute_output\x18\x04 \x01(\x0b2\x1c.inference.StatisticDuration'
    b'R\rcomputeOutput"\xbf\x02\n\x0fModelStatistics\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07versio'
    b"n\x12%\n\x0elast_inference\x18\x03 \x01(\x04R\rlastInference\x12'\n\x0finference_count\x18\x04 \x01(\x04R\x0einferenceCoun"
    b"t\x12'\n\x0fexecution_count\x18\x05 \x01(\x04R\x0eexecutionCount\x12C\n\x0finference_stats\x18\x06 \x01(\x0b2\x1a.inference."
    b'InferStatisticsR\x0einferenceStats\x12@\n\x0bbatch_stats\x18\x07 \x03(\x0b2\x1f.inference.InferBatchStati'
    b'sticsR\nbatchStats"F\n\x16ModelStatisticsRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\t'
    b'R\x07version"V\n\x17ModelStatisticsResponse\x12;\n\x0bmodel_stats\x18\x01 \x03(\x0b2\x1a.inference.ModelStati'
    b'sticsR\nmodelStats"\xba\x01\n\x18ModelRepositoryParameter\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12'
    b'!\n\x0bint64_param\x18\x02 \x01(\x03H\x00R\nint64Param\x12#\n\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParam\x12!\n\x0bbytes'
    b'_param\x18\x04 \x01(\x0cH\x00R\nbytesParamB\x12\n\x10parameter_choice"W\n\x16RepositoryIndexRequest\x12\'\n\x0frepo'
    b'sitory_name\x18\x01 \x01(\tR\x0erepositoryName\x12\x14\n\x05ready\x18\x02 \x01(\x08R\x05ready"\xca\x01\n\x17RepositoryIndexRespo'
    b'nse\x12E\n\x06models\x18\x01 \x03(\x0b2-.inference.RepositoryIndexResponse.ModelIndexR\x06models\x1ah\n\nMo'
    b'delIndex\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x14\n\x05state\x18\x03 \x01(\tR\x05state\x12\x16\n\x06'
    b'reason\x18\x04 \x01(\tR\x06reason"\x9f\x02\n\x1aRepositoryModelLoadRequest\x12\'\n\x0frepository_name\x18\x01 \x01(\tR\x0ere'
    b'positoryName\x12\x1d\n\nmodel_name\x18\x02 \x01(\tR\tmodelName\x12U\n\nparameters\x18\x03 \x03(\x0b25.inference.Repo'
    b'sitoryModelLoadRequest.ParametersEntryR\nparameters\x1ab\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01'
    b'(\tR\x03key\x129\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameterR\x05value:\x028\x01"\x1d\n\x1bReposi'
    b'toryModelLoadResponse"\xa3\x02\n\x1cRepositoryModelUnloadRequest\x12\'\n\x0frepository_name\x18\x01 \x01(\tR'
    b'\x0erepositoryName\x12\x1d\n\nmodel_name\x18\x02 \x01(\tR\tmodelName\x12W\n\nparameters\x18\x03 \x03(\x0b27.inference.R'
    b'epositoryModelUnloadRequest.ParametersEntryR\nparameters\x1ab\n\x0fParametersEntry\x12\x10\n\x03ke'
    b'y\x18\x01 \x01(\tR\x03key\x129\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameterR\x05value:\x028\x01"\x1f\n\x1dR'
    b'epositoryModelUnloadResponse"5\n\x1fSystemSharedMemoryStatusRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04n'
    b'ame"\xd7\x02\n SystemSharedMemoryStatusResponse\x12R\n\x07regions\x18\x01 \x03(\x0b28.inference.SystemShar'
    b'edMemoryStatusResponse.RegionsEntryR\x07regions\x1ai\n\x0cRegionStatus\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name'
    b'\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06offset\x18\x03 \x01(\x04R\x06offset\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize\x1at\n\x0cRegio'
    b'nsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12N\n\x05value\x18\x02 \x01(\x0b28.inference.SystemSharedMemoryStatusRes'
    b'ponse.RegionStatusR\x05value:\x028\x01"~\n!SystemSharedMemoryRegisterRequest\x12\x12\n\x04name\x18\x01 \x01(\t'
    b'R\x04name\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06offset\x18\x03 \x01(\x04R\x06offset\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize"$\n'
    b'"SystemSharedMemoryRegisterResponse"9\n#SystemSharedMemoryUnregisterRequest\x12\x12\n\x04na'
    b'me\x18\x01 \x01(\tR\x04name"&\n$SystemSharedMemoryUnregisterResponse"3\n\x1dCudaSharedMemoryStatus'
    b'Request\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"\xc4\x02\n\x1eCudaSharedMemoryStatusResponse\x12P\n\x07regions\x18\x01 \x03(\x0b2'
    b'6.inference.CudaSharedMemoryStatusResponse.RegionsEntryR\x07regions\x1a\\\n\x0cRegionStatus'
    b'\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1b\n\tdevice_id\x18\x02 \x01(\x04R\x08deviceId\x12\x1b\n\tbyte_size\x18\x03 \x01(\x04R\x08byteSize\x1ar'
    b'\n\x0cRegionsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12L\n\x05value\x18\x02 \x01(\x0b26.inference.CudaSharedMemoryStat'
    b'usResponse.RegionStatusR\x05value:\x028\x01"\x8e\x01\n\x1fCudaSharedMemoryRegisterRequest\x12\x12\n\x04name\x18\x01'
    b' \x01(\tR\x04name\x12\x1d\n\nraw_handle\x18\x02 \x01(\x0cR\trawHandle\x12\x1b\n\tdevice_id\x18\x03 \x01(\x03R\x08deviceId\x12\x1b\n\tbyte_s'
    b'ize\x18\x04 \x01(\x04R\x08byteSize""\n CudaSharedMemoryRegisterResponse"7\n!CudaSharedMemoryUnreg'
    b'isterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"$\n"CudaSharedMemoryUnregisterResponse*\xfa\x01\n\x08DataT'
    b'ype\x12\x10\n\x0cTYPE_INVALID\x10\x00\x12\r\n\tTYPE_BOOL\x10\x01\x12\x0e\n\nTYPE_UINT8\x10\x02\x12\x0f\n\x0bTYPE_UINT16\x10\x03\x12\x0f\n\x0bTYPE_UI'
    b'NT32\x10\x04\x12\x0f\n\x0bTYPE_UINT64\x10\x05\x12\r\n\tTYPE_INT8\x10\x06\x12\x0e\n\nTYPE_INT16\x10\x07\x12\x0e\n\nTYPE_INT32\x10\x08\x12\x0e\n\nTYPE_I'
    b'NT64\x10\t\x12\r\n\tTYPE_FP16\x10\n\x12\r\n\tTYPE_FP32\x10\x0b\x12\r\n\tTYPE_FP64\x10\x0c\x12\x0f\n\x0bTYPE_STRING\x10\r\x12\r\n\tTYPE_BF1'
    b'6\x10\x0e2\xef\r\n\x14GRPCInferenceService\x12I\n\nServerLive\x12\x1c.inference.ServerLiveRequest\x1a\x1d.infer'
    b'ence.ServerLiveResponse\x12L\n\x0bServerReady\x12\x1d.inference.ServerReadyRequest\x1a\x1e.inferenc'
    b'e.ServerReadyResponse\x12I\n\nModelReady\x12\x1c.inference.ModelReadyRequest\x1a\x1d.inference.Mo'
    b'delReadyResponse\x12U\n\x0eServerMetadata\x12 .inference.ServerMetadataRequest\x1a!.inference'
    b'.ServerMetadataResponse\x12R\n\rModelMetadata\x12\x1f.inference.ModelMetadataRequest\x1a .infe'
    b'rence.ModelMetadataResponse\x12I\n\nModelInfer\x12\x1c.inference.ModelInferRequest\x1a\x1d.infere'
    b'nce.ModelInferResponse\x12Y\n\x10ModelStreamInfer\x12\x1c.inference.ModelInferRequest\x1a#.infer'
    b'ence.ModelStreamInferResponse(\x010\x01\x12L\n\x0bModelConfig\x12\x1d.inference.ModelConfigRequest\x1a'
    b'\x1e.inference.ModelConfigResponse\x12X\n\x0fModelStatistics\x12!.inference.ModelStatisticsRe'
    b'quest\x1a".inference.ModelStatisticsResponse\x12X\n\x0fRepositoryIndex\x12!.inference.Reposit'
    b'oryIndexRequest\x1a".inference.RepositoryIndexResponse\x12d\n\x13RepositoryModelLoad\x12%.inf'
    b'erence.RepositoryModelLoadRequest\x1a&.inference.RepositoryModelLoadResponse\x12j\n\x15Rep'
    b"ositoryModelUnload\x12'.inference.RepositoryModelUnloadRequest\x1a(.inference.Reposito"
    b'ryModelUnloadResponse\x12s\n\x18SystemSharedMemoryStatus\x12*.inference.SystemSharedMemory'
    b'StatusRequest\x1a+.inference.SystemSharedMemoryStatusResponse\x12y\n\x1aSystemSharedMemory'
    b'Register\x12,.inference.SystemSharedMemoryRegisterRequest\x1a-.inference.SystemSharedM'
    b'emoryRegisterResponse\x12\x7f\n\x1cSystemSharedMemoryUnregister\x12..inference.SystemSharedMe'
    b'moryUnregisterRequest\x1a/.inference.SystemSharedMemoryUnregisterResponse\x12m\n\x16CudaSh'
    b'aredMemoryStatus\x12(.inference.CudaSharedMemoryStatusRequest\x1a).inference.CudaShare'
    b'dMemoryStatusResponse\x12s\n\x18CudaSharedMemoryRegister\x12*.inference.CudaSharedMemoryRe'
    b'gisterRequest\x1a+.inference.CudaSharedMemoryRegisterResponse\x12y\n\x1aCudaSharedMemoryUn'
    b'register\x12,.inference.CudaSharedMemoryUnregisterRequest\x1a-.inference.CudaSharedMem'
    b'oryUnregisterResponseb\x06proto3'
)
DESCRIPTOR = _pool.FindFileByName("inference.proto")
ServerLiveRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerLiveRequest"))
ServerLiveResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerLiveResponse"))
ServerReadyRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerReadyRequest"))
ServerReadyResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerReadyResponse"))
ModelReadyRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelReadyRequest"))
ModelReadyResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelReadyResponse"))
ServerMetadataRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerMetadataRequest"))
ServerMetadataResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ServerMetadataResponse"))
ModelMetadataRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelMetadataRequest"))
ModelMetadataResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelMetadataResponse"))
InferParameter = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.InferParameter"))
InferTensorContents = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.InferTensorContents"))
ModelInferRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelInferRequest"))
ModelInferResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelInferResponse"))
ModelStreamInferResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelStreamInferResponse"))
ModelInput = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelInput"))
ModelOutput = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelOutput"))
ModelVersionPolicy = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelVersionPolicy"))
ModelParameter = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelParameter"))
ModelEnsembling = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelEnsembling"))
ModelConfig = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelConfig"))
ModelConfigRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelConfigRequest"))
ModelConfigResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelConfigResponse"))
StatisticDuration = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.StatisticDuration"))
InferStatistics = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.InferStatistics"))
InferBatchStatistics = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.InferBatchStatistics"))
ModelStatistics = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelStatistics"))
ModelStatisticsRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelStatisticsRequest"))
ModelStatisticsResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelStatisticsResponse"))
ModelRepositoryParameter = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.ModelRepositoryParameter"))
RepositoryIndexRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryIndexRequest"))
RepositoryIndexResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryIndexResponse"))
RepositoryModelLoadRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryModelLoadRequest"))
RepositoryModelLoadResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryModelLoadResponse"))
RepositoryModelUnloadRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryModelUnloadRequest"))
RepositoryModelUnloadResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.RepositoryModelUnloadResponse"))
SystemSharedMemoryStatusRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryStatusRequest"))
SystemSharedMemoryStatusResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryStatusResponse"))
SystemSharedMemoryRegisterRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryRegisterRequest"))
SystemSharedMemoryRegisterResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryRegisterResponse"))
SystemSharedMemoryUnregisterRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryUnregisterRequest"))
SystemSharedMemoryUnregisterResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.SystemSharedMemoryUnregisterResponse"))
CudaSharedMemoryStatusRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryStatusRequest"))
CudaSharedMemoryStatusResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryStatusResponse"))
CudaSharedMemoryRegisterRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryRegisterRequest"))
CudaSharedMemoryRegisterResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryRegisterResponse"))
CudaSharedMemoryUnregisterRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryUnregisterRequest"))
CudaSharedMemoryUnregisterResponse = message_factory.GetMessageClass(_pool.FindMessageTypeByName("inference.CudaSharedMemoryUnregisterResponse"))
TYPE_INVALID = 0
TYPE_BOOL = 1
TYPE_UINT8 = 2
TYPE_UINT16 = 3
TYPE_UINT32 = 4
TYPE_UINT64 = 5
TYPE_INT8 = 6
TYPE_INT16 = 7
TYPE_INT32 = 8
TYPE_INT64 = 9
TYPE_FP16 = 10
TYPE_FP32 = 11
TYPE_FP64 = 12
TYPE_STRING = 13
TYPE_BF16 = 14
