"The public names of the chapter `positives`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "auxiliary_labels": ['AuxiliaryLabels', 'ColourFeatures', 'fit_auxiliary_labels', 'load_auxiliary_labels'],
    "clustering": ['cluster_features'],
    "matching": ['geometric_matches', 'match_accuracy', 'match_features'],
    "quality": ['label_quality'],
})
