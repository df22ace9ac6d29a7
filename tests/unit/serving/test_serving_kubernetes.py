"""Serve config files as KubeRay manifests, checked against the structure of KubeRay's own."""

from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from itemese.core.errors import ConfigError
from itemese.serving.config import ServeArgs
from itemese.serving.kubernetes import ray_service

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "serve_configs").glob("*.yaml"))


def closed(required, **properties):
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
QUANTITIES = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^\d+(Gi)?$"},
}
SECRET = closed(["secretKeyRef"], secretKeyRef=closed(["name", "key"], name=TEXT, key=TEXT))
CONTAINER = closed(
    ["name", "image"],
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    image=TEXT,
    env={"type": "array", "items": closed(["name"], name=TEXT, valueFrom=SECRET)},
    ports={
        "type": "array",
        "items": closed(
            ["containerPort"],
            containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
            name={"type": "string", "maxLength": 15},
        ),
    },
    resources=closed([], requests=QUANTITIES, limits=QUANTITIES),
)
POD = closed(
    ["spec"],
    spec=closed(["containers"], containers={"type": "array", "minItems": 1, "items": CONTAINER}),
)
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
# The fields of the ray.io/v1 RayService that the manifest uses; anything else is a misspelling.
RAY_SERVICE = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=closed(["name"], name=TEXT),
    spec=closed(
        ["serveConfigV2", "rayClusterConfig"],
        serveConfigV2=TEXT,
        rayClusterConfig=closed(
            ["headGroupSpec"],
            rayVersion=TEXT,
            authOptions=closed([], mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling={"type": "boolean"},
            headGroupSpec=closed(["template"], rayStartParams=PARAMETERS, template=POD),
            workerGroupSpecs={
                "type": "array",
                "items": closed(
                    ["groupName", "minReplicas", "maxReplicas", "template"],
                    groupName=TEXT,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    rayStartParams=PARAMETERS,
                    template=POD,
                ),
            },
        ),
    ),
)


def manifest(file, **changes):
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    config["applications"][0]["args"].update(changes)
    return ray_service(config, image="registry/itemese:1", bundle="s3://bucket/registry")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_manifest_has_kuberay_s_structure_and_the_file_s_settings(file):
    reported = manifest(file)
    jsonschema.validate(reported, RAY_SERVICE)
    served = ServeDeploySchema(**yaml.safe_load(reported["spec"]["serveConfigV2"]))
    assert served.http_options.host == "0.0.0.0"
    application = served.applications[0]
    own = yaml.safe_load(file.read_text(encoding="utf-8"))["applications"][0]
    assert application.args == {**own["args"], "bundle": "s3://bucket/registry"}
    ServeArgs.parse(application.args, where="args")
    deployment = own["deployments"][0]
    assert (
        application.deployments[0].ray_actor_options.num_cpus
        == (deployment["ray_actor_options"]["num_cpus"])
    )
    cluster = reported["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == ray.__version__
    group = cluster["workerGroupSpecs"][0]
    scaling = deployment.get("autoscaling_config", {})
    assert group["minReplicas"] == scaling.get("min_replicas", deployment.get("num_replicas"))
    assert group["maxReplicas"] == scaling.get("max_replicas", deployment.get("num_replicas"))
    assert cluster["enableInTreeAutoscaling"] == bool(scaling)
    for pod in (cluster["headGroupSpec"], group):
        container = pod["template"]["spec"]["containers"][0]
        assert container["env"][0]["name"] == "ITEMESE_TOKEN", "Serve's proxies listen beyond it"


def test_the_check_would_notice_a_misspelling():
    reported = manifest(FILES[0])
    reported["spec"]["rayClusterConfig"]["workerGroupSpec"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(reported, RAY_SERVICE)


def test_what_pods_cannot_reach_is_refused():
    config = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match="every pod can read; got 'runs/registry'"):
        ray_service(config, image="i", bundle="runs/registry")
    with pytest.raises(ConfigError, match="a file of one pod"):
        manifest(FILES[0], users="users.sqlite")
    assert "redis://store:6379/0" in str(manifest(FILES[0], users="redis://store:6379/0"))
