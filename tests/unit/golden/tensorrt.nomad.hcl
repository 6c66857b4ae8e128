# Version v1 of service nlp. Made by nomadserve: change the service file, not this job.
job "nlp-v1" {
  type        = "service"
  datacenters = ["*"]

  meta {
    nomadserve_service = "nlp"
    nomadserve_version = "v1"
  }

  # A changed file of the same version: a new replica gets healthy beside the old ones, and only then are
  # the old ones replaced, a few at a time. If it doesn't get healthy, the old ones go on.
  update {
    canary            = 1
    auto_promote      = true
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "2s"
    healthy_deadline  = "30m"
    progress_deadline = "1h"
    auto_revert       = true
  }

  group "serve" {
    count = 1

    volume "engines" {
      type   = "host"
      source = "engines"
    }

    network {
      mode = "host"
      port "http" {}
    }

    # Its replicas under one name. `native` lets Consul split traffic to them; they speak plain HTTP.
    service {
      provider = "consul"
      name     = "nlp-v1"
      port     = "http"
      task     = "serve"
      tags     = ["nomadserve", "v1"]

      meta {
        service = "nlp"
        version = "v1"
        alloc   = "${NOMAD_ALLOC_ID}"
      }

      connect {
        native = true
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/v2/health/ready"
        interval = "2s"
        timeout  = "2s"
      }
    }

    # Consul forgets a replica first; it stops answering afterwards.
    shutdown_delay = "3s"

    # A crash is tried again in place, then elsewhere, with growing pauses and for ever.
    restart {
      attempts = 2
      interval = "5m"
      delay    = "3s"
      mode     = "fail"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "5m"
      unlimited      = true
    }

    task "serve" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image        = "registry.example/nomadserve:1"
        network_mode = "host"
        command      = "nomadserve"
        args         = ["serve"]

        mount {
          type     = "bind"
          source   = "/srv/model.onnx"
          target   = "/models/ranker.onnx"
          readonly = true
        }
      }

      volume_mount {
        volume      = "engines"
        destination = "/engines"
      }

      artifact {
        source      = "https://models.example/bert.onnx"
        destination = "local/models/bert.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      artifact {
        source      = "https://models.example/embedder.plan?version=3"
        destination = "local/models/embedder.plan"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE         = "nlp"
        NOMADSERVE_VERSION         = "v1"
        NOMADSERVE_MODELS          = "[{\"name\":\"bert\",\"path\":\"$${NOMAD_TASK_DIR}/models/bert.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32,\"precision\":\"fp16\",\"profiles\":[{\"ids\":{\"min\":[1,1],\"opt\":[8,64],\"max\":[32,128]},\"mask\":{\"min\":[1,1],\"opt\":[8,64],\"max\":[32,128]}},{\"ids\":{\"min\":[1,129],\"opt\":[4,256],\"max\":[8,512]},\"mask\":{\"min\":[1,129],\"opt\":[4,256],\"max\":[8,512]}}],\"instances\":2,\"warmup\":5},{\"name\":\"ranker\",\"path\":\"/models/ranker.onnx\",\"engine\":\"onnxruntime\",\"max_batch\":32,\"checksum\":\"sha256:54af4b122691dd8f159e0a47cea783aec497eede033d4d3be1f5c1bf5abb2eb8\"},{\"name\":\"embedder\",\"path\":\"$${NOMAD_TASK_DIR}/models/embedder.plan\",\"engine\":\"tensorrt\",\"max_batch\":32}]"
        NOMADSERVE_ENGINE_CACHE    = "/engines"
        NOMADSERVE_HOST            = "${NOMAD_IP_http}"
        NOMADSERVE_PORT            = "${NOMAD_PORT_http}"
        NOMADSERVE_QUEUE_MAX       = "256"
        NOMADSERVE_BATCH_MAX_DELAY = "0s"
        NOMADSERVE_DRAIN_DELAY     = "0s"  # `shutdown_delay` above is that delay
        NOMADSERVE_DRAIN_TIMEOUT   = "25s" # inside of `kill_timeout`
        NOMADSERVE_LOG_LEVEL       = "info"
      }

      resources {
        cpu    = 500
        memory = 1024

        device "nvidia/gpu" {
          count = 1

          constraint {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "8 GiB"
          }
        }
      }
    }
  }
}
