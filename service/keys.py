"""`python -m service.keys create|list|revoke`: the API keys in the job store, for `loramend keys`.

Answers with a JSON document on stdout: what was asked for, or with exit code 1 the problem.
"""

import argparse
import sys
from datetime import timedelta

from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from loramend.contracts.errors import LoramendError, RequestError
from loramend.contracts.keys import OWNER, SCOPES, ApiKeys
from service.jobs.connect import redis_from_url
from service.jobs.keys import KeyStore
from service.jobs.settings import JobsSettings, explain


def main() -> int:
    """Do what the arguments say. Returns 1 where that cannot be done."""
    arguments = _parser().parse_args()
    try:
        settings = JobsSettings()
    except ValidationError as error:
        print(explain(error), file=sys.stderr)  # noqa: T201
        return 1
    try:
        with redis_from_url(settings.broker_url) as redis:
            answer = _answer(KeyStore(redis), arguments)
    except LoramendError as error:
        return _tell(error.problem(), 1)
    except RedisError as error:
        why = f"The job store does not answer ({type(error).__name__})."
        return _tell(LoramendError("broker_unavailable", why).problem(), 1)
    return _tell(answer, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create")
    create.add_argument("--seconds", type=float, help="how long it lives; for ever without")
    create.add_argument("owner")
    create.add_argument("scopes", nargs="+", choices=SCOPES)
    commands.add_parser("list")
    commands.add_parser("revoke").add_argument("id")
    return parser


def _answer(keys: KeyStore, arguments: argparse.Namespace) -> BaseModel:
    match arguments.command:
        case "create":
            try:
                lifetime = None if arguments.seconds is None else timedelta(seconds=arguments.seconds)
                return keys.create(arguments.owner, arguments.scopes, lifetime)
            except ValidationError:
                raise RequestError("request_invalid", f"An owner's name must fit {OWNER}.") from None
        case "revoke":
            keys.revoke(arguments.id)
    return ApiKeys(keys=keys.all())


def _tell(answer: BaseModel, code: int) -> int:
    print(answer.model_dump_json())  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
