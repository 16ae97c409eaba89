"""What a repaired adapter is made of, as a CycloneDX ML-BOM: its pedigree, its base model and the text it
learned from."""

import json
import re
from collections.abc import Iterable, Mapping
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from loramend.contracts.names import REPO_ID
from loramend.contracts.report import FileDigest, Report

_HUB_NAME = re.compile(r"(?P<id>[^@]+)(?:@(?P<revision>.+))?")


def report_bom(report: Report) -> str:
    """The bill of a repair as JSON, CycloneDX 1.6; the same report gives the same text."""
    tool = Component(
        name="loramend", version=report.provenance.loramend, type=ComponentType.APPLICATION, bom_ref="tool"
    )
    original = _original(report)
    adapter = Component(
        name=report.adapter.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="adapter",
        description="A LoRA adapter, repaired by loramend.",
        hashes=_hashes(report.output),
        pedigree=Pedigree(ancestors=[original], notes=_steps(report)),
        properties=_properties(report),
        components=_files(report.output, "adapter"),
    )
    bases = [
        Component(
            name=read.name,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"model-{read.role}",
            purl=_purl(read.name),
            properties=_named({"role": read.role, "tensors": read.tensors, "tensors:sha256": read.sha256}),
        )
        for read in report.references
    ]
    if not any(read.role == "base" for read in report.references) and report.adapter.base_model:
        bases.append(
            Component(
                name=report.adapter.base_model,
                type=ComponentType.MACHINE_LEARNING_MODEL,
                bom_ref="model-base",
                purl=_purl(report.adapter.base_model),
                properties=_named({"role": "base", "read": "no: as the adapter's own config names it"}),
            )
        )
    texts = [
        Component(
            name=read.name,
            type=ComponentType.DATA,
            bom_ref=f"text-{read.role}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=read.sha256)],
            properties=_named({"role": read.role, "examples": read.examples}),
        )
        for read in report.data
    ]
    bom = Bom(components=[*bases, *texts], serial_number=_serial(report))
    bom.metadata.timestamp = report.provenance.started_at
    bom.metadata.tools.components.add(tool)
    bom.metadata.component = adapter
    bom.register_dependency(adapter, [*bases, *texts])
    return f"{make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)}\n"


def _original(report: Report) -> Component:
    """The adapter as it came."""
    source = report.provenance.source
    hub = f"{source['hub_id']}@{source.get('revision', '')}" if source.get("hub_id") else None
    return Component(
        name=report.adapter.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="original",
        description="The adapter as it came.",
        version=source.get("revision"),
        purl=_purl(hub.rstrip("@")) if hub else None,
        hashes=_hashes(report.adapter.files),
        components=_files(report.adapter.files, "original"),
        properties=_named({f"source:{name}": value for name, value in source.items()}),
    )


def _files(files: Iterable[FileDigest], of: str) -> list[Component]:
    return [
        Component(
            name=file.path,
            type=ComponentType.FILE,
            bom_ref=f"{of}-file-{index}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
            properties=_named({"bytes": file.size}),
        )
        for index, file in enumerate(files)
    ]


def _hashes(files: Iterable[FileDigest]) -> list[HashType]:
    """The digest of the weights, which is the model itself."""
    weights = [file for file in files if file.path.endswith(".safetensors")]
    return [HashType(alg=HashAlgorithm.SHA_256, content=file.sha256) for file in weights[:1]]


def _steps(report: Report) -> str:
    steps = [json.dumps(step.model_dump(mode="json")) for step in report.steps]
    return "\n".join([f"Repaired for the threat {report.threat}, in these steps:", *steps, *report.summary])


def _properties(report: Report) -> list[Property]:
    totals = report.totals
    return _named(
        {
            "threat": report.threat,
            "seed": report.provenance.seed,
            "device": report.provenance.device,
            "report:schema": report.schema_version,
            "norm:before": f"{totals.norm_before:.6g}",
            "norm:after": None if totals.norm_after is None else f"{totals.norm_after:.6g}",
            **{f"version:{name}": version for name, version in report.provenance.versions.items()},
            **{f"not-repaired:{i}": name for i, name in enumerate(report.adapter.passed_through)},
        }
    )


def _named(values: Mapping[str, object]) -> list[Property]:
    return [
        Property(name=f"loramend:{name}", value=str(value))
        for name, value in values.items()
        if value is not None
    ]


def _purl(name: str) -> PackageURL | None:
    """The Hub repository's package URL; None for a path."""
    found = _HUB_NAME.fullmatch(name)
    if found is None or not re.fullmatch(REPO_ID, found["id"]) or "/" not in found["id"]:
        return None
    namespace, _, repo = found["id"].partition("/")
    return PackageURL("huggingface", namespace, repo, found["revision"])


def _serial(report: Report) -> UUID:
    """Of this repair: its output and when it was made."""
    digests = [file.sha256 for file in report.output]
    return uuid5(NAMESPACE_URL, f"loramend:{report.provenance.started_at.isoformat()}:{','.join(digests)}")
