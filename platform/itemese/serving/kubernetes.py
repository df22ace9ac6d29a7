"""A Serve config file as a KubeRay RayService: the same settings on a cluster as on a laptop.

When pods change, KubeRay starts a new cluster beside the old one and switches when it answers. A
promotion in the registry changes no pod.
"""

import math
from collections.abc import Mapping
from typing import Any

import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from itemese.core.errors import ConfigError
from itemese.serving.token import TOKEN_VARIABLE

Manifest = dict[str, Any]

PORT = 8000
_HEAD = {"cpu": "1", "memory": "2Gi"}
_MEMORY_GIB = 2  # of a replica, unless it asks Ray for more


def ray_service(
    serve_config: Mapping[str, Any], *, image: str, bundle: str, name: str = "itemese"
) -> Manifest:
    """Return the manifest; one pod of the worker group holds one replica.

    The token comes from the key ``token`` of a Secret of the same name, which must exist:
    ``kubectl create secret generic itemese --from-file=token``.

    Args:
        serve_config: Contents of a file of serve_configs/.
        image: Container image with Ray and this package.
        bundle: Bundle or registry, where every pod can read it.
        name: Of the service and of the secret.

    Raises:
        ConfigError: Pods cannot reach the bundle or the user store, or the file does not hold
            exactly one application.
    """
    config = ServeDeploySchema(**serve_config).model_dump(exclude_unset=True, mode="json")
    if len(config["applications"]) != 1 or len(config["applications"][0]["deployments"]) != 1:
        message = (
            "`serve_config` must hold one application of one deployment; got others. Use a file of "
            "serve_configs/."
        )
        raise ConfigError(message)
    _require_reach("bundle", bundle)
    application = config["applications"][0]
    deployment = application["deployments"][0]
    application["args"] = {**application["args"], "bundle": bundle}
    users = application["args"].get("users")
    if users is not None and "://" not in users:
        message = (
            f"`users` must be a server that all pods reach; got {users!r}, a file of one pod. Give "
            "redis://host:6379/0."
        )
        raise ConfigError(message)
    # Clients of pods are on other machines, which the token of the secret below allows.
    config["http_options"] = {**config["http_options"], "host": "0.0.0.0", "port": PORT}
    config["proxy_location"] = "EveryNode"
    scaling = deployment.get("autoscaling_config")
    least = int(scaling["min_replicas"] if scaling else deployment["num_replicas"])
    most = int(scaling["max_replicas"] if scaling else deployment["num_replicas"])
    actor = deployment["ray_actor_options"]
    # A replica's own CPUs and half of one for the node's proxy.
    worker = {"cpu": f"{math.ceil(actor['num_cpus'] + 0.5)}", "memory": _memory(actor)}
    cluster = {
        "rayVersion": ray.__version__,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": most > least,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _pod("ray-head", image, name, _HEAD),
        },
        "workerGroupSpecs": [
            {
                "groupName": "replicas",
                "replicas": least,
                "minReplicas": least,
                "maxReplicas": most,
                "rayStartParams": {},
                "template": _pod("ray-worker", image, name, worker),
            }
        ],
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False),
            "rayClusterConfig": cluster,
        },
    }


def _pod(container: str, image: str, secret: str, resources: Mapping[str, str]) -> Manifest:
    token = {"secretKeyRef": {"name": secret, "key": "token"}}
    ports = [{"containerPort": PORT, "name": "serve"}]
    if container == "ray-head":
        ports += [
            {"containerPort": 6379, "name": "gcs"},
            {"containerPort": 8265, "name": "dashboard"},
        ]
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "env": [{"name": TOKEN_VARIABLE, "valueFrom": token}],
                    "ports": ports,
                    "resources": {"requests": dict(resources), "limits": dict(resources)},
                }
            ]
        }
    }


def _memory(actor: Mapping[str, Any]) -> str:
    """Return the memory of a worker's pod: a replica's, and one GiB for Ray."""
    asked = math.ceil(float(actor.get("memory") or 0) / 2**30)
    return f"{max(asked, _MEMORY_GIB) + 1}Gi"


def _require_reach(field: str, place: str) -> None:
    if "://" not in place and not place.startswith("/"):
        message = (
            f"`{field}` must be a URI or an absolute path that every pod can read; got {place!r}. "
            "Give for example s3://bucket/registry."
        )
        raise ConfigError(message)
