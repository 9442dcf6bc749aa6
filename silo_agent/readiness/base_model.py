"""Readiness of base models: their files, what of them carries LoRA, their licences."""

from pathlib import Path

from data_contracts.dataset.contract import DataContract
from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.records.licence_terms import Use
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask, ModelFamily
from infra.base_model.coverage import coverage_words
from infra.base_model.folder_check import likely_family, require_sound
from infra.base_model.linear_modules import LinearModules, NoSuchModelError, linear_modules
from infra.base_model.tokenizer_files import template_notes
from infra.base_model.weight_files import Weights
from infra.disk.model_files import model_digest
from silo_agent.policy.policy_file import AllowedModel
from silo_agent.readiness.checklist import Item, of_fault, there, tried, wrong
from silo_agent.readiness.facts import Facts

MODEL_DIGESTS = "model-digests.json"


def judged_model(path: Path) -> list[str]:
    """The digest of a model that can be trained, and what of it; SiloOperatorError for another."""
    task = FamilyTask(family=likely_family(path))
    weights = require_sound(path, needs_template=False, family=task.family)
    linear = known_modules(path, task)
    left_out = [f"without those called {end}: {why}" for end, why in linear.left_out.items()]
    covered = coverage_words(weights, linear.modules)
    if task == CAUSAL_TASK:
        return [model_digest(path), covered, *left_out, *template_notes(path)]
    return [model_digest(path), covered, *left_out, f"looked at for the family {task.family}"]


def known_modules(path: Path, task: FamilyTask = CAUSAL_TASK) -> LinearModules:
    """What of a model is trained for a task; SiloOperatorError where transformers knows it not."""
    try:
        return linear_modules(path, task)
    except NoSuchModelError as error:
        raise SiloOperatorError(
            f"base model {path}",
            expected=f"a model of the family {task.family}, of an architecture that transformers "
            "knows",
            found=str(error),
            action="use another base model, or a release of transformers that knows it",
        ) from None


def base_models(facts: Facts) -> list[Item]:
    """An item for each model that the policy allows."""
    policy, contract = facts.policy.policy, facts.contract
    if policy is None:
        return [Item("base model", "not checked", "it needs a policy that can be read")]
    uses: tuple[Use, ...] = (
        contract.terms.uses if isinstance(contract, DataContract) else ("research",)
    )
    return [_model(facts, model, uses) for model in policy.models]


def _model(facts: Facts, model: AllowedModel, uses: tuple[Use, ...]) -> Item:
    name, path = f"base model {model.name}", facts.config.path(model.path)
    if not path.is_dir():
        return Item(
            name, "missing", str(path), "put the model's files there, or correct the policy"
        )
    found = tried(lambda: model_digest(path, facts.config.home / MODEL_DIGESTS))
    if isinstance(found, ConsortiaError):
        return of_fault(name, found)
    if found != model.digest:
        detail = f"{path} has the digest {found}; the policy names {model.digest}"
        return wrong(name, detail, "restore the model's files, or correct the policy's digest")
    contract = facts.contract
    # Without a contract nobody knows that its records can do without a template.
    wanted = not isinstance(contract, DataContract) or contract.source.record_form.needs_template
    family = _family(facts, path)
    weights = tried(lambda: require_sound(path, needs_template=wanted, family=family))
    if isinstance(weights, ConsortiaError):
        return of_fault(name, weights)
    judged = [judge_model(model.licence, use, model.licence_acceptance) for use in uses]
    if not any(finding.allowed for finding in judged):
        detail = "; ".join(finding.reason for finding in judged)
        return wrong(name, detail, "correct licence or licence_acceptance in the policy")
    return there(name, f"{path}, {model.licence}, digest {found}{_covered(facts, found, weights)}")


def _family(facts: Facts, path: Path) -> ModelFamily:
    """That of the newest plan, where it is of this model."""
    plan, digest = facts.plan, model_digest(path, facts.config.home / MODEL_DIGESTS)
    is_asked = plan is not None and plan.base_model.digest == digest
    return plan.learned.family if plan is not None and is_asked else likely_family(path)


def _covered(facts: Facts, digest: str, weights: Weights) -> str:
    """What of the model the newest plan trains here, where it is this model's."""
    plan = facts.plan
    if plan is None or plan.base_model.digest != digest:
        return ""
    return f"; {coverage_words(weights, plan.layout_of(facts.config.silo).targets)}"
