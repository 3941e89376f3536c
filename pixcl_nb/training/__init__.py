"The public names of the chapter `training`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cache": ['CachedData', 'cache_error', 'cached', 'source_digest', 'with_cache', 'write_cache'],
    "distributed": ['Job', 'start_processes'],
    "loop": ['History', 'pretrain'],
    "settings": ['TrainConfig', 'TrainingStopped'],
})
