"""The local broker as it is where strangers are about: SASL_SSL alone, and only what an ACL allows."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.cli.dev.broker import Broker
from services.runtime import kafka
from services.runtime.settings import Kafka, kafka_at

ADMIN = "admin"
PASSWORD = "only-for-tests"
PREFIX = "MILLSTREAM_KAFKA__SECURITY__"
ITERATIONS = 4096
TIMEOUT_S = 30.0


class SecuredBroker(Broker):
    """One listener, SASL_SSL with SCRAM-SHA-512 and PLAIN; the certificate is its own authority."""

    @property
    def ca(self) -> Path:
        """What clients trust."""
        return self.folder / "broker.crt"

    def environ(
        self, user: str, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512"
    ) -> dict[str, str]:
        """The settings with which this user signs in."""
        return {
            f"{PREFIX}PROTOCOL": "SASL_SSL",
            f"{PREFIX}MECHANISM": mechanism,
            f"{PREFIX}USERNAME": user,
            f"{PREFIX}PASSWORD": password,
            f"{PREFIX}CA": str(self.ca),
        }

    def settings(self, user: str, **changes: str) -> Kafka:
        """The same for a client of this process."""
        return kafka_at(self.bootstrap, {**self.environ(user), **changes})

    def add_users(self, *names: str) -> None:
        """Users who may do nothing yet."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
        wanted: list[Any] = [UserScramCredentialUpsertion(name, info, PASSWORD.encode()) for name in names]
        with kafka.Admin(self.settings(ADMIN), "tests-secured") as admin:
            for future in admin.alter_user_scram_credentials(wanted).values():
                future.result(TIMEOUT_S)

    def _answers(self) -> bool:
        with kafka.Admin(self.settings(ADMIN), "tests-secured") as admin:
            try:
                return bool(admin.describe_cluster(request_timeout=1.0).result(TIMEOUT_S).nodes)
            except KafkaException:
                return False

    def _write_settings(self) -> None:
        super()._write_settings()
        _write_certificate(self.ca, self.folder / "broker.key")
        (self.folder / "broker.pem").write_text(
            self.folder.joinpath("broker.key").read_text() + self.ca.read_text()
        )
        text = self._settings.read_text(encoding="utf-8")
        text = text.replace("inter.broker.listener.name=PLAINTEXT", "inter.broker.listener.name=SASL_SSL")
        text = text.replace("=PLAINTEXT://", "=SASL_SSL://")
        text = text.replace("PLAINTEXT:PLAINTEXT,CONTROLLER", "SASL_SSL:SASL_SSL,CONTROLLER")
        login = f'required username="{ADMIN}" password="{PASSWORD}"'
        listener = "listener.name.sasl_ssl"
        module = "org.apache.kafka.common.security"
        secured = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # the controller's listener is the node's own, on loopback
            "super.users": f"User:{ADMIN};User:ANONYMOUS",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            f"{listener}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule {login};",
            f"{listener}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule {login}"
            f' user_{ADMIN}="{PASSWORD}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }
        lines = "\n".join(f"{key}={value}" for key, value in secured.items())
        self._settings.write_text(f"{text}\n# secured\n{lines}\n", encoding="utf-8")

    def _format_command(self, cluster_id: str) -> list[str]:
        scram = f"SCRAM-SHA-512=[name={ADMIN},password={PASSWORD}]"
        return [*super()._format_command(cluster_id), "--add-scram", scram]


def _write_certificate(certificate: Path, key_file: Path) -> None:
    """Signed by itself, for the loopback address, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Millstream's tests")])
    begins = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
