"""The files that `silo-agent init` writes, with comments for the person who edits them."""

from dataclasses import dataclass
from pathlib import Path

from infra.disk.toml_text import toml_string
from infra.storage.config import MORE_SETTINGS

_CONFIG = """\
# Configuration of this silo's agent. Paths are relative to this directory.
silo = {silo}
federation = {federation}
policy = "policy.toml"

[storage]
endpoint_url = {endpoint_url}
credentials = "keys/storage-credentials.toml" # access_key and secret_key, mode 0600
{more_storage}{plain}allow_plain_http = true  # where the network below is encrypted

[trust]
membership = "membership.json" # handed over by the federation operator; compare fingerprints

[data]
root = "data"              # nothing outside this directory is ever read
contract = "contract.yaml" # ODCS data contract, with contract.agreement.json beside it
registries = "registries"  # copyright registries that the contract names
# database = "keys/database-url" # file with an SQLAlchemy URL, for a contract over a table
# allow_hard_links = true  # read files with more than one name, of which some may lie outside

[disk]                     # the agent removes what no round needs: `silo-agent disk` shows it
keep_rounds = 1            # of each run, besides the newest
keep_other_runs_days = 90  # after the federation has gone on to another run

[training]
device = {device}        # "cpu" or "cuda"
ranks = {ranks}            # processes, one per GPU
zero_stage = 2             # DeepSpeed ZeRO stage: 1, 2, 3 or "auto"; private plans need 1 or "auto"
# micro_batch = 1          # packed sequences through the model at a time, or "auto": what fits
# gradient_checkpointing = false # less memory for a third more time; true, false or "auto"
# memory_gb = 8.0          # of one process; default: its share of the machine
# precision = "auto"       # "float32", "bfloat16", or what is fast here; docs/precision.md
# base_weights = "full"    # "8-bit", "4-bit": quantised while it trains; docs/precision.md
# offload = "none"         # "cpu": parameters and optimizer outside of the GPU, with stage 3
threads_per_rank = 1
# steps_at_most = 10       # of a round, where a plan lets silos do fewer; docs/silo-operator.md
# time_limit_seconds = 86400 # of one training; ends it early where a plan lets silos do fewer
checkpoint_every_steps = 2
heldout_sequences = 32     # packed ones; from 10 records on a range of the change is signed
silo_only_baseline = true  # also train an adapter that never leaves, for comparison
# keep_minutes = 10        # the model stays in memory so long after work; 0: never
# lock = "/var/lock/consortia-train" # agents that share one machine take turns

# [personal]               # an adapter of this silo's own, which never leaves; docs/personal.md
# method = "dual"          # beside the federation's; "ditto": pulled towards it; "off"
# lambda = 0.01            # of "ditto": how hard it is pulled
# share_loss = true        # its held-out loss leaves with the others, if the contract lets them
# every_round = true       # false: only when `silo-agent personalise` is run

# [training.nodes]         # ranks on machines that all see this directory; docs/many-nodes.md
# launcher = "hosts"       # or "slurm", "kubernetes"
# count = 2                # machines; ranks, a multiple of it, are those of all
# interface = "ib0"        # of the network between them
# hosts = {{ hostfile = "hostfile" }} # with lines such as: gpu-1 slots=4
# slurm = {{ options = ["--partition=gpu"] }} # of sbatch

# [agent]
# max_restarts = 1         # of training, evaluation or a check that was killed, before a refusal

# [metrics]                # for people of this silo, who then also see losses on training records
# prometheus_port = 9464   # of loopback; pip install 'consortia[metrics]'
# tensorboard = "metrics/tensorboard" # a folder
# mlflow = "http://127.0.0.1:5000" # a server of this machine
# allow_remote_mlflow = true # a server elsewhere: losses on training records leave this machine
"""


def config_text(
    silo: str,
    federation: str,
    endpoint_url: str,
    device: str,
    ranks: int,
    *,
    allow_plain_http: bool = False,
) -> str:
    """The agent's configuration as it begins."""
    return _CONFIG.format(
        silo=toml_string(silo),
        federation=toml_string(federation),
        endpoint_url=toml_string(endpoint_url),
        device=toml_string(device),
        ranks=ranks,
        more_storage=MORE_SETTINGS,
        plain="" if allow_plain_http else "# ",
    )


_POLICY = """\
# What this silo is willing to take part in. The agent fails closed: while this file is missing,
# unreadable or incomplete, it refuses every plan. Every refusal is signed and names its rule.
version = 1
take_part = false # set to true when you have read the rest

purposes = [{purposes}] # exact texts, for example ["clinical coding assistant, research"]
# "auditable": the aggregator sees this silo's adapter; "confidential": only a sum of several
trust_modes = ["auditable"]
# Only where the federation does not encrypt adapters: then whoever runs the storage can read them.
trust_storage_with_deltas = false
# true lets every other silo read this silo's adapter alone, to measure what each contributed
share_individual_delta = false
# What you send and the federation uses stays in your inbox, locked for the days that the plan says.
# In governance mode a person with that right can erase it; true allows locks that nobody can open.
compliance_retention = false
# true lets a published adapter's model card name this silo and give its held-out losses
may_be_named = false
# show_memory = true # statuses say how much memory ranks hold; the coordinator needs this release

# [privacy]
# required = true # plans without differential privacy are refused, whatever the contract says

[limits]
max_local_steps = 1000
max_sequences_per_step = 256
max_sequence_length = 4096
max_learning_rate = 0.001
max_rank = 64
max_adapter_bytes = 1_000_000_000
min_cohort_silos = 3
max_retention_days = 400
# min_summed_silos = 4 # confidential mode needs it: how many changes there are in a sum at least
# min_known_silos = 2  # of [known_silos] below, in every sum besides this one; docs/privacy.md
# max_sums_per_start = 1 # in confidential mode: after a round that was held, too; docs/privacy.md

# [known_silos] # partners in confidential mode, with min_known_silos; docs/privacy.md
# south = "any key" # by name alone: whichever key the root keys have signed for it
# west = "0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000"
# the fingerprint of a silo's key, compared by telephone; the membership has to name that very key

[leak_check] # of every adapter before it leaves, in a fifth of the training's time; docs/privacy.md
max_auc = 0.7       # how well records that were trained on may be told from held-out ones
max_verbatim = 0.01 # by how much more of their answers may come back word by word
max_exposure = 5.0  # bits by which canaries that the contract plants may be likelier than others
too_few = "refuse"  # where fewer than 200 of each could be measured; "allow": limits hold for those
# off = "adapters leave this silo unchecked"

{models}"""

_NO_MODEL = """\
# [[models]]
# name = "SmolLM2-135M-Instruct"
# licence = "Apache-2.0"
# digest = "..."  # printed by `silo-agent check --model PATH`
# path = "/models/SmolLM2-135M-Instruct"
# licence_acceptance = "LicenseRef-Gemma-Terms accepted by A. Person" # where a licence asks for it
"""

_MODEL = """\
[[models]]
name = {name}
licence = {licence}
digest = {digest} # of the files at path; the operator's copy must have the same
path = {path}
# licence_acceptance = "LicenseRef-Gemma-Terms accepted by A. Person" # where a licence asks for it
"""


@dataclass(frozen=True)
class LocalModel:
    """A base model on this silo's disk, as its policy names it."""

    name: str
    licence: str
    digest: str
    path: Path


def policy_text(purpose: str, model: LocalModel | None) -> str:
    """The policy as it begins: it may name a purpose and a model, and still takes part in nothing.

    `take_part` is for a person to set, in the file; so is `trust_storage_with_deltas`, where the
    federation does not encrypt.
    """
    models = _NO_MODEL
    if model is not None:
        models = _MODEL.format(**{name: toml_string(value) for name, value in vars(model).items()})
    return _POLICY.format(purposes=toml_string(purpose) if purpose else "", models=models)
