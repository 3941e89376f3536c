"The public names of the chapter `experiments`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "bench": ['DemoConfig', 'PROTOCOL_TITLES', 'START_TITLES', 'matches_within_one_cell', 'method_settings', 'words'],
    "claims": ['ALWAYS', 'ARMS', 'Arm', 'Bench', 'ClaimsConfig', 'LABELLINGS', 'Labelling', 'MEASURED', 'NoiseFeatures', 'ROWS', 'Row', 'SCALES', 'agreement_course', 'auxiliary_algorithm', 'auxiliary_outliers', 'auxiliary_quality', 'auxiliary_single', 'budget_score', 'budget_separation', 'claim_command_line', 'claim_row', 'compare', 'comparison', 'cp2_finetune', 'cp2_quick', 'densecl_matches', 'densecl_overhead', 'densecl_probe', 'equal_steps', 'extractor', 'first_encoder', 'label_budget', 'label_contrast', 'labelling_score', 'labelling_scores', 'measure', 'new_method', 'other_positives', 'paired', 'recipe_of', 'run_claims', 'score', 'scores', 'step_times', 'train_config', 'try_row', 'tune', 'verdict'],
    "demo": ['run_demo'],
    "export": ['DEEP_STEM', 'DETECTRON2', 'ExportReport', 'LOADERS', 'RESNET', 'STATES', 'SUFFIXES', 'caveat', 'check_export', 'create_on_meta', 'dilations', 'export_encoder', 'feature_gap', 'load_in_timm', 'load_in_torchvision', 'packed', 'renamed', 'resnet_kind', 'timm_stride', 'to_detectron2', 'to_mmseg', 'to_timm', 'to_torchvision', 'usage'],
    "recipes": ['ALL_PAIRS', 'BATCH', 'Bill', 'COCO', 'CP2', 'DENSECL', 'FINETUNE', 'FINETUNES', 'GROUP', 'IMAGENET', 'LABEL', 'MACHINES', 'MOCO', 'Machine', 'NoiseData', 'PLAIN_INIT', 'RECIPES', 'Recipe', 'StepCost', 'VIEW', 'ZERO_INIT', 'bill', 'dry_run', 'few_images', 'finetune_values', 'norm_groups', 'plain_lines', 'random_batch', 'recipe', 'recipe_bill', 'recipe_text', 'recipe_values', 'shrunk', 'sourced_yaml', 'step_cost', 'view_lines', 'yaml_word'],
    "runs": ['RunConfig', 'load_run', 'read_config', 'rerun', 'run', 'run_config'],
})
