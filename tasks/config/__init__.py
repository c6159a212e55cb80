"""The parameters of a night: frozen pydantic models, validated once and stored whole in the store.

The Prefect UI draws its "custom run" form from these models, `--config FILE.yaml` has the same keys,
and prefect.yaml holds the same keys again. A misspelt key is refused everywhere.

dataset_section      `dataset`: which images, splits, classes and size
model_section        `model`: which network, how it is fed, how it is trained
explanation_section  `explanation`, `integrated_gradients`, `grad_cam`: how rows are explained
night_section        `worth`, `drift`, `audit`, `alert`, `gallery`, `prune`: what is done with an explained night
run_section          `run`: where the files go, where and how the parts run
section              what every section is: frozen, strict about keys and numbers
"""

from tasks.config.dataset_section import DatasetConfig
from tasks.config.explanation_section import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.config.model_section import ExistingModelConfig, FeedConfig, ModelConfig
from tasks.config.night_section import AlertConfig, AuditConfig, DriftConfig, GalleryConfig, PruneConfig, WorthConfig
from tasks.config.run_section import OnDemandRunConfig, RunConfig

__all__ = [
    "AlertConfig",
    "AuditConfig",
    "DatasetConfig",
    "DriftConfig",
    "ExistingModelConfig",
    "ExplanationConfig",
    "FeedConfig",
    "GalleryConfig",
    "GradCamConfig",
    "IntegratedGradientsConfig",
    "ModelConfig",
    "OnDemandRunConfig",
    "PruneConfig",
    "RunConfig",
    "WorthConfig",
]
