"The public names of the chapter `positives`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "auxiliary_labels": ['AuxiliaryData', 'AuxiliaryLabels', 'ColourFeatures', 'LabelGrid', 'REFINEMENTS', 'as_stored', 'check_fits', 'check_same_labels', 'describe_encoder', 'fit_auxiliary_labels', 'image_names', 'label_grids', 'label_images', 'label_more', 'load_auxiliary_labels', 'majority_in_superpixels', 'mirrored', 'plain_image', 'prepare_folder', 'read_ids', 'read_labeller', 'read_manifest', 'rows_at', 'sample_rows', 'write_ids', 'write_labeller', 'write_manifest'],
    "clustering": ['ALGORITHMS', 'Clusters', 'Labeller', 'cluster_features', 'distinct_rows', 'fit_dbscan', 'fit_hdbscan', 'fit_kmeans', 'nearest', 'outlier_radius', 'spherical_kmeans', 'starting_rows'],
    "matching": ['POSITIVES', 'check_views', 'choose_matches', 'from_source', 'geometric_matches', 'geometric_positions', 'map_columns', 'match_accuracy', 'match_features', 'match_points', 'mutual_only', 'neighbour_cosine', 'parabola_peak', 'refine_matches', 'sample_features', 'similarity_blocks', 'to_source', 'top_k_matches', 'unit_columns', 'view_size'],
    "quality": ['Contingency', 'PairCounts', 'label_quality', 'pair_rates', 'pair_sums', 'v_measure'],
})
