"The public names of the chapter `experiments`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "bench": ['DemoConfig', 'PROTOCOL_TITLES', 'START_TITLES', 'matches_within_one_cell', 'method_settings', 'words'],
    "claims": ['ALWAYS', 'ARMS', 'Arm', 'Bench', 'COUNTS', 'ClaimsConfig', 'LABELLINGS', 'Labelling', 'MEASURED', 'ROWS', 'Row', 'SCALES', 'compare_arms', 'paired_difference', 'run_claims', 'verdict'],
    "demo": ['run_demo'],
    "export": ['ExportReport', 'export_encoder'],
    "first_look": ['FirstLook', 'first_look'],
    "lessons": ['copy_lessons'],
    "recipes": ['FINETUNES', 'GROUP', 'NoiseData', 'RECIPES', 'Recipe', 'bill', 'dry_run', 'finetune_values', 'norm_groups', 'plain_lines', 'recipe', 'recipe_bill', 'recipe_text', 'recipe_values', 'scaling'],
    "regimes": ['ADAMW', 'FEW_CELLS', 'GEOMETRIC', 'LABEL_FORMS', 'LAMBDAS', 'LEARNED', 'NETWORK', 'NOT_SEEN', 'OWN_VIEWS', 'PARTNERS', 'QUEUE', 'Regime', 'SEEDS', 'SGD', 'SHORTER', 'STARTS', 'STEPS', 'SWEEPS', 'Start', 'TUNINGS', 'arms', 'gains', 'grid', 'network_of', 'plain_colour', 'regime_point', 'variant'],
    "runs": ['RunConfig', 'load_run', 'read_config', 'replay_run', 'rerun', 'run', 'run_config'],
})
