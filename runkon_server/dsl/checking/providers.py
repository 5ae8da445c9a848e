"""Whether the providers of items take what a foreach asks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import ForEach, OnChildFail
from runkon_server.dsl.diagnostics import diagnostic, did_you_mean
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.checking.world import Provider
    from runkon_server.dsl.diagnostics import Diagnostic


def check_providers(
    definition: Definition, providers: Mapping[str, Provider] | None
) -> Iterator[Diagnostic]:
    """Check every foreach; without a list of providers, only what needs none."""
    for node in all_nodes(definition):
        if not isinstance(node, ForEach):
            continue
        if providers is None or node.over in providers:
            yield from _check_order(node)
        if providers is not None:
            yield from _check_foreach(node, providers)


def _check_order(node: ForEach) -> Iterator[Diagnostic]:
    if node.on_child_fail is OnChildFail.SKIP_DEPENDENTS and not node.ordered:
        yield diagnostic(
            codes.SKIP_WITHOUT_ORDER,
            node.span,
            f"`{node.name}` cannot skip dependents of a failed item: its items have no order",
            hint="add `ordered = true`, or use `on_child_fail = continue` or `halt`",
        )


def _check_foreach(node: ForEach, providers: Mapping[str, Provider]) -> Iterator[Diagnostic]:
    provider = providers.get(node.over)
    if provider is None:
        message = f"`{node.name}` goes over `{node.over}`, which nobody provides"
        hint = did_you_mean(node.over, providers)
        yield diagnostic(codes.UNKNOWN_PROVIDER, node.span, message, hint=hint)
        return
    scope_error = provider.scope_error(node.scope)
    if scope_error is not None:
        yield diagnostic(codes.BAD_SCOPE, node.span, f"scope of `{node.name}`: {scope_error}")
    else:
        for remark in provider.scope_remarks(node.scope):
            yield diagnostic(codes.SCOPE_REMARK, node.span, f"scope of `{node.name}`: {remark}")
    if node.ordered and not provider.knows_order:
        yield diagnostic(
            codes.NO_ORDER,
            node.span,
            f"`{node.name}` asks for an order that `{node.over}` does not know",
            hint=_order_hint(providers),
        )
    yield from _check_filter(node, provider)


def _check_filter(node: ForEach, provider: Provider) -> Iterator[Diagnostic]:
    if node.filter:
        error = provider.filter_error(node.filter)
        if error is not None:
            yield diagnostic(codes.BAD_FILTER, node.span, f"filter of `{node.name}`: {error}")
    elif provider.filter_example is not None:
        yield diagnostic(
            codes.MISSING_FILTER,
            node.span,
            f"`{node.name}` must filter what it takes from `{node.over}`",
            hint=f"for example `filter = {provider.filter_example}`",
        )


def _order_hint(providers: Mapping[str, Provider]) -> str:
    ordered = [f"`{name}`" for name, provider in sorted(providers.items()) if provider.knows_order]
    others = f", or go over {' or '.join(ordered)}" if ordered else ""
    return f"leave out `ordered`{others}"
