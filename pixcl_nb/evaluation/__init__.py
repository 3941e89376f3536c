"The public names of the chapter `evaluation`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "finetuning": ['finetune'],
    "keypoints": ['pck', 'pck_keypoints', 'pck_pairs'],
    "probe": ['linear_probe'],
    "protocols": ['EvaluationReport', 'LABEL_FREE', 'PROTOCOLS', 'TRAINING', 'evaluate'],
    "retrieve_and_cluster": ['cluster', 'retrieve'],
    "score": ['SegmentationResult', 'boundary_quality'],
    "separation": ['class_separation', 'separability'],
})
