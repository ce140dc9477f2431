"""Pays through paymesh with stock gRPC, in TLS, by a token: two users are enrolled, and one pays the other.

    pip install grpcio grpcio-tools && mkdir -p stubs
    python -m grpc_tools.protoc --proto_path=proto --python_out=stubs --grpc_python_out=stubs $(find proto -name '*.proto')
    export TOKEN=$(paymesh token checkout) OTHER_TOKEN=$(paymesh token wallet_app --user 4101)
    PYTHONPATH=stubs python examples/python/pay.py 127.0.0.1:7102 credentials/ca.crt

Run again, it gets the same answers, and no money moves twice: each write has a request id of its own. It ends with 0 when every answer is
as it should be. Where OTHER_TOKEN is left out, what another user's token may not do is not looked at.
"""

import os
import sys
import time

import grpc
from paymesh.common.v1.common_pb2 import Money
from paymesh.directory.v1.directory_pb2 import EnrollUserRequest
from paymesh.directory.v1.directory_pb2_grpc import DirectoryServiceStub
from paymesh.payments.v1.payments_pb2 import CreatePaymentRequest, GetPaymentRequest, PaymentStatus
from paymesh.payments.v1.payments_pb2_grpc import PaymentServiceStub
from paymesh.wallet.v1.wallet_pb2 import DepositRequest, GetBalanceRequest, GetStatementRequest
from paymesh.wallet.v1.wallet_pb2_grpc import WalletServiceStub

# Anna lives in Germany and Benoît in France: their home is eu_west, whichever region is asked.
ANNA, BENOIT = 4100, 4101

SECONDS_MAX = 20


def bearer(token):
    """What a call shows of its caller."""
    return [("authorization", "Bearer " + token)]


def request_id(number):
    return f"0190b8f5-0000-7000-8000-{number:012}"


def euros(minor_units):
    return Money(minor_units=minor_units, currency_code="EUR")


def expect(what, found, expected):
    print(f"{what}: {found}")
    if found != expected:
        sys.exit(f"{what} should be {expected}")


def code_of(method, request, **credential):
    """How a call ends."""
    try:
        method(request, timeout=SECONDS_MAX, **credential)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def main(address, authorities, token, other_token):
    with open(authorities, "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
    directory, payments, wallet = DirectoryServiceStub(channel), PaymentServiceStub(channel), WalletServiceStub(channel)
    mine = {"metadata": bearer(token), "timeout": SECONDS_MAX}

    for number, (user, country) in enumerate([(ANNA, "DE"), (BENOIT, "FR")], start=1):
        directory.EnrollUser(
            EnrollUserRequest(request_id=request_id(number), user_id=user, residence_country=country, currency_codes=["EUR"]), **mine
        )
    wallet.Deposit(DepositRequest(request_id=request_id(3), user_id=ANNA, amount=euros(10_000)), **mine)
    paid = payments.CreatePayment(
        CreatePaymentRequest(request_id=request_id(4), payer_id=ANNA, payee_id=BENOIT, amount=euros(2_500), reference="rent"), **mine
    ).payment

    # Benoît's money is kept by another shard, which takes it in some hundred milliseconds later.
    give_up = time.monotonic() + SECONDS_MAX
    status = paid.status
    while status == PaymentStatus.PAYMENT_STATUS_IN_TRANSIT and time.monotonic() < give_up:
        time.sleep(0.05)
        status = payments.GetPayment(GetPaymentRequest(payment_id=paid.payment_id), **mine).payment.status
    expect("the payment", PaymentStatus.Name(status), "PAYMENT_STATUS_COMPLETED")

    for name, user, cents in [("Anna", ANNA, 7_500), ("Benoît", BENOIT, 2_500)]:
        answer = wallet.GetBalance(GetBalanceRequest(user_id=user), **mine)
        expect(f"{name}'s balance", [(of.currency_code, of.booked_minor_units) for of in answer.balances], [("EUR", cents)])
        expect("read at", answer.source.region, "eu_west")
    lines = wallet.GetStatement(GetStatementRequest(user_id=ANNA, currency_code="EUR"), **mine).lines
    lines = [(line.amount_minor_units, line.balance_minor_units, line.reference) for line in lines]
    expect("Anna's statement, newest first", lines, [(-2_500, 7_500, "rent"), (10_000, 10_000, "")])

    # Who shows nothing is nobody, and who acts for Benoît does not see what Anna has, and cannot pay with it.
    balance = GetBalanceRequest(user_id=ANNA)
    expect("without a token", code_of(wallet.GetBalance, balance), grpc.StatusCode.UNAUTHENTICATED)
    if other_token:
        other = {"metadata": bearer(other_token)}
        steal = CreatePaymentRequest(request_id=request_id(5), payer_id=ANNA, payee_id=BENOIT, amount=euros(1))
        expect("another user's balance", code_of(wallet.GetBalance, balance, **other), grpc.StatusCode.PERMISSION_DENIED)
        expect("another user's money", code_of(payments.CreatePayment, steal, **other), grpc.StatusCode.PERMISSION_DENIED)
        expect("one's own balance", code_of(wallet.GetBalance, GetBalanceRequest(user_id=BENOIT), **other), grpc.StatusCode.OK)


if __name__ == "__main__":
    if len(sys.argv) != 3 or "TOKEN" not in os.environ:
        sys.exit(__doc__)
    # Tokens are in the environment: arguments of a program can be seen by all others.
    main(sys.argv[1], sys.argv[2], os.environ["TOKEN"], os.environ.get("OTHER_TOKEN"))
