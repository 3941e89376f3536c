"The public names of the chapter `methods`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "auxiliary_contrast": ['AuxiliaryContrast'],
    "contract": ['Method', 'create_method', 'make_encoder', 'method_class'],
    "cp2": ['CP2', 'cp2_dense_loss'],
    "densecl": ['DenseCL', 'densecl_loss'],
    "label_contrast": ['LabelContrast', 'fill_batch'],
    "moco": ['MoCo'],
})
