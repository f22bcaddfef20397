"""The configuration: TOML into frozen models, or one error that lists everything wrong with it.

Every section of the file is a model, every key a field of the same name. Durations are held in
milliseconds, sizes in bytes, paths absolute. Secrets stay in their files: the models hold where
those are, and ``read_secret_file`` reads one when it is needed.
"""

from broker.config.backends import BACKEND_KEYS
from broker.config.entries import (
    CapabilityEntry,
    IdentitySection,
    IssuerEntry,
    PrincipalEntry,
)
from broker.config.load import (
    Config,
    load_config,
    parse_config,
    read_secret_file,
    write_secret_file,
)
from broker.config.policy import ObserveEntry, PolicySection, RemoteMode, RemoteSection
from broker.config.sections import (
    BrokerSection,
    LogFormat,
    RedisSection,
    RetentionSection,
    RevocationSection,
    TasksSection,
    VaultAuth,
    VaultSection,
)

__all__ = [
    "BACKEND_KEYS",
    "BrokerSection",
    "CapabilityEntry",
    "Config",
    "IdentitySection",
    "IssuerEntry",
    "LogFormat",
    "ObserveEntry",
    "PolicySection",
    "PrincipalEntry",
    "RedisSection",
    "RemoteMode",
    "RemoteSection",
    "RetentionSection",
    "RevocationSection",
    "TasksSection",
    "VaultAuth",
    "VaultSection",
    "load_config",
    "parse_config",
    "read_secret_file",
    "write_secret_file",
]
