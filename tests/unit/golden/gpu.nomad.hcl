# Version v2 of service vision. Made by nomadserve: change the service file, not this job.
job "vision-v2" {
  type        = "service"
  datacenters = ["*"]
  node_pool   = "gpu"

  meta {
    nomadserve_service = "vision"
    nomadserve_version = "v2"
  }

  # A changed file of the same version: a new replica gets healthy beside the old ones, and only then are
  # the old ones replaced, a few at a time. If it doesn't get healthy, the old ones go on.
  update {
    canary            = 1
    auto_promote      = true
    max_parallel      = 2
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "15m"
    progress_deadline = "1h"
    auto_revert       = false
  }

  group "serve" {
    count = 3

    network {
      mode = "host"
      port "http" {}
    }

    # Its replicas under one name. `native` lets Consul split traffic to them; they speak plain HTTP.
    service {
      provider = "consul"
      name     = "vision-v2"
      port     = "http"
      task     = "serve"
      tags     = ["nomadserve", "v2"]

      meta {
        service = "vision"
        version = "v2"
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
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["serve"]
      }

      artifact {
        source      = "https://models.example/detector-v2.onnx"
        destination = "local/models/detector.onnx"
        mode        = "file"

        options {
          archive  = "false"
          checksum = "sha256:abababababababababababababababababababababababababababababababab"
        }
      }

      artifact {
        source      = "s3::https://s3.eu-central-1.amazonaws.com/models/classifier.onnx"
        destination = "local/models/classifier.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE              = "vision"
        NOMADSERVE_VERSION              = "v2"
        NOMADSERVE_MODELS               = "[{\"name\":\"detector\",\"path\":\"$${NOMAD_TASK_DIR}/models/detector.onnx\",\"engine\":\"tensorrt\",\"max_batch\":64,\"checksum\":\"sha256:abababababababababababababababababababababababababababababababab\"},{\"name\":\"classifier\",\"path\":\"$${NOMAD_TASK_DIR}/models/classifier.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32,\"threads\":2}]"
        NOMADSERVE_HOST                 = "${NOMAD_IP_http}"
        NOMADSERVE_PORT                 = "${NOMAD_PORT_http}"
        NOMADSERVE_QUEUE_MAX            = "512"
        NOMADSERVE_QUEUE_TIMEOUT        = "90s"
        NOMADSERVE_BATCH_MAX_DELAY      = "0.5ms"
        NOMADSERVE_BATCH_LATENCY_TARGET = "20ms"
        NOMADSERVE_DRAIN_DELAY          = "0s"  # `shutdown_delay` above is that delay
        NOMADSERVE_DRAIN_TIMEOUT        = "25s" # inside of `kill_timeout`
        NOMADSERVE_LOG_LEVEL            = "info"
      }

      resources {
        cores      = 4
        memory     = 2048
        memory_max = 4096

        device "nvidia/gpu" {
          count = 2

          constraint {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "24 GiB"
          }

          constraint {
            attribute = "${device.model}"
            operator  = "regexp"
            value     = "A100|H100"
          }

          constraint {
            attribute = "${device.attr.driver_version}"
            operator  = "version"
            value     = ">= 550, < 580"
          }

          affinity {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "80 GiB"
            weight    = 75
          }

          affinity {
            attribute = "${device.model}"
            operator  = "regexp"
            value     = "L4"
            weight    = -50
          }
        }
      }
    }
  }
}
