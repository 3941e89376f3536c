"The public names of the chapter `widgets`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "base": ['PixelWidget', 'as_image', 'picture_uri', 'quantise'],
    "copy_paste": ['CopyPasteStudio'],
    "correspondence": ['CorrespondenceExplorer'],
    "embedding": ['EmbeddingExplorer'],
    "monitor": ['TrainingMonitor', 'control', 'follow_control'],
    "separation": ['SeparationExplorer'],
})
