"The public names of the chapter `evaluation`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "finetuning": ['check_head', 'finetune', 'make_head', 'make_optimiser', 'random_crop', 'segmentation_loss', 'training_batch'],
    "keypoints": ['encode_pairs', 'pair_threshold', 'pck', 'pck_keypoints', 'pck_pairs', 'pck_summary', 'point_classes', 'predict_points', 'stereo_points'],
    "probe": ['features_at', 'fit_softmax_regression', 'linear_probe', 'sample_pixels'],
    "protocols": ['EvaluationReport', 'PROTOCOLS', 'Part', 'evaluate', 'spread', 'train_and_test'],
    "retrieve_and_cluster": ['Centres', 'NearestNeighbours', 'cluster', 'match_clusters', 'retrieve', 'sample_cells'],
    "score": ['Items', 'SegmentationResult', 'Segmenter', 'batches', 'boundary_counts', 'boundary_f_score', 'boundary_quality', 'check_pair', 'confusion_matrix', 'count_pixels', 'predict_logits', 'predict_mask', 'score', 'window_starts'],
    "separation": ['class_separation', 'foreground_separation', 'pair_similarities', 'separability'],
})
