"""What a night does, a verb a file. Whatever of it is imported first, Keras is then used by our settings."""

from tasks.process.keras_settings import use_own_settings

use_own_settings()
