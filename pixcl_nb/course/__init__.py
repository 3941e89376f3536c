"The public names of the chapter `course`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "capstone": ['BASE', 'BUDGET', 'HALVING', 'RECIPE_METHODS', 'UNTRAINED', 'changed_setting', 'check_recipe', 'claim_points', 'curve_points', 'interval_score', 'score_recipe', 'table_points'],
    "checks": ['CLOSED', 'ClosedModules', 'MARKING', 'by_hand', 'call', 'close_modules', 'compare', 'cost', 'fresh_seed', 'value_and_gradients'],
    "gradebook": ['add_commands', 'mark_folder'],
    "marking": ['Marked', 'feedback_page', 'mark_notebook', 'sandbox_for'],
    "packs": ['build_packs'],
    "sandbox": ['Limits', 'busy'],
    "slides": ['write_slides'],
})
