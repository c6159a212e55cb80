"""Commands on a root: its nights and models."""

from flows.options import DEFAULT_ROOT, RootOption

__all__ = ["models"]


def models(root: RootOption = DEFAULT_ROOT) -> None:
    """Lists the trained models, newest first."""
    from flows.terminal import quiet_tensorflow
    from storage import Catalog

    folder = Catalog(root).models
    with quiet_tensorflow():
        from tasks.registry import list_models
    records = list_models(folder)
    for record in records:
        accuracy = record.history.get("val_accuracy", [])
        reached = f"accuracy {accuracy[-1]:.4f}" if accuracy else "accuracy unknown"
        print(f"{record.name}  {record.dataset_name}  {record.epochs} epochs  {reached}  {record.created_utc}")
        print(f"    {record.path}")
    if not records:
        print(f"no model in {folder} yet; `nightlens run --root {root}` trains one")
