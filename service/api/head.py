"""HEAD where GET is served (RFC 9110, section 9.1): the server sends the headers and drops the body."""

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute

from service.api import events


def head_router(routers: Iterable[APIRouter]) -> APIRouter:
    """A HEAD route for each GET route that has none of its own, in their order; not in the OpenAPI document.

    A job's events are left out: a stream has no length to tell, and its headers say nothing of the job.
    """
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    told = {route.path for route in routes if route.methods == {"HEAD"}}
    heads = APIRouter(include_in_schema=False)
    for route in routes:
        if route.methods == {"GET"} and route.path not in told and route.endpoint is not events.get_events:
            heads.add_api_route(route.path, route.endpoint, methods=["HEAD"])
    return heads
