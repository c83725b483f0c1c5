"""Commands that audit a model, and certify what was found."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

from pathlib import Path
from typing import Annotated, Final

import typer

from gdc.cli.application import Json, TextField, app, print_json
from gdc.errors import LEAKS, DataError
from gdc.workspace.source_option import source_of

AUDIT: Final = Path("reports/audit")

Heldout = Annotated[
    str | None, typer.Option(help="Text of the same kind that it was not trained on.")
]
Canaries = Annotated[
    Path | None, typer.Option(help="Planted secrets and twins: Parquet or JSON lines.")
]
OtherTokenizer = Annotated[
    str | None, typer.Option(help="Folder or Hub name; else the model's own.")
]
IdField = Annotated[
    str | None, typer.Option(help="The field with your ids; else sample_id, id or row numbers.")
]
ReferenceModel = Annotated[
    str | None, typer.Option(help="A model that did not see the text: a folder or a Hub name.")
]
ChatTemplate = Annotated[
    Path | None,
    typer.Option(help="A Jinja file for conversations; else the template of the tokenizer."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=SHARE, such as extraction=0.01: exit with code 3 if the upper end of the "
        "interval is above. Names: extraction, extraction-memorized, "
        "extraction-beyond-reference, canary-extraction, auc. May be repeated."
    ),
]
ShowText = Annotated[bool, typer.Option("--show-text", help="Write and list what comes out.")]
BlockSize = Annotated[
    int | None, typer.Option(min=2, help="Tokens of a window; else what the model sees.")
]


@app.command()
def audit(  # noqa: PLR0913, PLR0917 - one argument for each option
    model: Annotated[str, typer.Option(help="A causal language model: a folder or a Hub name.")],
    corpus: Annotated[str, typer.Option(help="Text it was trained on: a file or folder.")],
    heldout: Heldout = None,
    canaries: Canaries = None,
    tokenizer: OtherTokenizer = None,
    text_field: TextField = "text",
    id_field: IdField = None,
    reference: ReferenceModel = None,
    chat_template: ChatTemplate = None,
    fail_above: Limits = None,
    show_text: ShowText = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows listed.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder of the tables and the report.")] = AUDIT,
    block_size: BlockSize = None,
    num_members: Annotated[int, typer.Option(min=1, help="Training texts asked at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of that choice and of intervals.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit any model and text, without the pipeline: which rows come out, and a verdict."""
    from gdc.commands import audit, release
    from gdc.commands.own_files import keyed_source, tokenizer_of

    request = audit.Request(
        model=model,
        tokenizer=tokenizer or tokenizer_of(model),
        corpus=keyed_source(corpus, text_field, id_field, "--corpus"),
        heldout=None if heldout is None else source_of(heldout, text_field, "--heldout"),
        canaries=canaries,
        block_size=block_size,
        seed=seed,
        reference=reference,
        chat_template=chat_template,
    )
    limits = release.limits_of(fail_above or ())
    options = release.Options(corpus, limits, show_text)
    release.require_free(options, reference, out)
    audited = audit.run_audit(request, num_members, out)
    report, verdict = audited.measured.report, release.judge(audited, options, out)
    if as_json:
        print_json(release.as_plain(report, verdict))
    else:
        typer.echo("\n".join(release.told(report, verdict, out, limit)))
    if not verdict.passed:
        raise typer.Exit(LEAKS)


@app.command()
def certify(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of an audit; else the run in this folder.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="A private key of OpenSSH, to sign with ssh-keygen.")
    ] = None,
) -> None:
    """Write a certificate: hashes of all that was audited, the results, how to repeat them."""
    from gdc.commands import audit_certificate, certificate, verification
    from gdc.workspace import signatures

    if key is not None:
        signatures.require_key(key)
    if folder is None:
        made, path = certificate.certificate_of_run(), certificate.RUN
    else:
        made = audit_certificate.certificate_of_audit(folder)
        path = folder / certificate.NAME
    verification.require_results(made)
    certificate.write(made, path)
    typer.echo(f"certificate   {path.resolve()}")
    if key is not None:
        typer.echo(f"signature     {signatures.sign(path, key).resolve()}")


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="What gdc certify wrote.")],
    signer: Annotated[
        Path | None, typer.Option(help="The public key that has to have signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a certificate: files against their hashes, the results against the tables.

    Run it in the folder in which the certificate was made, or in a clone of it with its data.
    """
    from gdc.commands import verification

    different, notes = verification.verify(certificate, signer)
    if as_json:
        print_json({"differences": different, "notes": notes})
    else:
        for line in [*notes, *different]:
            typer.echo(line)
    if different:
        raise DataError(
            f"{certificate}: expected all as it was certified, got {len(different)} differences."
        )
    if not as_json:
        typer.echo("All files are as they were certified, and give the certified results.")
