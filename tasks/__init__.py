"""What a night does, a verb a file, and the packages that serve the verbs.

ingest         whatever the source, a prepared dataset
train          a model that fits it, reused or trained
agree          how that model is fed and read: its contract
evaluate       how good it is on the whole test split
explain        every row, in parts that run side by side and survive a crash
assess         what the explanations are worth, beside controls
seal           the parts become one store; `latest` moves to it after the audit
audit          a few rows, computed again by other people's code
publish        galleries, report and pages
housekeeping   old nights go, and a page says which
running_night  the night while it runs, and how it ends
config/        every setting, validated once
datasets/      sources of images, and a fixed order with a fingerprint
models/        a model from its file, and the registry of trained ones
contract/      how a model is fed and read: found or set, proved, recorded
numerics/      pure functions over arrays and Keras models
parts/         all that decides a number in a part, and how parts run
night/         what is known of a night: result, warnings, events, progress
worth/         what explanations are worth, and what they reveal
pages/         pages of the Prefect UI, a page a file
report/        report.html, the night as a page
browse/        `nightlens browse`: every row of every night in a browser
handover/      a finished night in other hands: MLflow, a copy at an address
recompute/     random rows of a sealed store, computed again: `verify --recompute`
process/       this process: TensorFlow, Keras's settings, software versions

Whatever of it is imported first, Keras is then used by our settings.
"""

from tasks.process.keras_settings import use_own_settings

use_own_settings()
