"The public names of the chapter `methods`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "auxiliary_contrast": ['AuxiliaryContrast'],
    "contract": ['METHODS', 'Method', 'create_method', 'make_encoder', 'method_class'],
    "cp2": ['CP2', 'cp2_dense_loss'],
    "densecl": ['DenseCL', 'densecl_loss'],
    "label_contrast": ['LabelBranch', 'LabelContrast', 'LabelContrastConfig', 'PixelClassifier', 'STRATEGIES', 'chosen_indices', 'fill_batch', 'hard_pixels', 'nearest_class_mean', 'paired', 'partners', 'place_in_group', 'sample_pixels', 'share_of_images', 'take_pixels', 'two_classes', 'two_colours'],
    "moco": ['MoCo'],
})
