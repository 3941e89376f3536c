"The public names of the chapter `training`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cache": ['CachedData', 'cache_error', 'cached', 'source_digest', 'with_cache', 'write_cache'],
    "checkpoints": ['RunFolder', 'best_checkpoint', 'check_same_run', 'identity_of', 'keep_best', 'last_checkpoint', 'open_board', 'parse_row', 'read_checkpoint', 'room_on', 'save_checkpoint', 'term_mean'],
    "distributed": ['Job', 'start_processes'],
    "loop": ['History', 'pretrain'],
    "settings": ['LARS', 'MAY_DIFFER', 'TrainConfig', 'TrainingStopped', 'choose_device', 'learning_rate', 'make_optimizer', 'step_generator', 'step_seed'],
})
