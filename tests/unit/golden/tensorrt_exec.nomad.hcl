# Version v1 of service vision. Made by nomadserve: change the service file, not this job.
job "vision-v1" {
  type        = "service"
  datacenters = ["*"]

  meta {
    nomadserve_service = "vision"
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

    # Plans of TensorRT: whoever takes this replica's place on the node finds them.
    ephemeral_disk {
      sticky = true
    }

    network {
      mode = "host"
      port "http" {}
    }

    # Its replicas under one name. `native` lets Consul split traffic to them; they speak plain HTTP.
    service {
      provider = "consul"
      name     = "vision-v1"
      port     = "http"
      task     = "serve"
      tags     = ["nomadserve", "v1"]

      meta {
        service = "vision"
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
      driver       = "exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["serve"]
      }

      artifact {
        source      = "https://models.example/detector.onnx"
        destination = "local/models/detector.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE         = "vision"
        NOMADSERVE_VERSION         = "v1"
        NOMADSERVE_MODELS          = "[{\"name\":\"detector\",\"path\":\"$${NOMAD_TASK_DIR}/models/detector.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32}]"
        NOMADSERVE_ENGINE_CACHE    = "$${NOMAD_ALLOC_DIR}/data/tensorrt"
        NOMADSERVE_HOST            = "${NOMAD_IP_http}"
        NOMADSERVE_PORT            = "${NOMAD_PORT_http}"
        NOMADSERVE_QUEUE_MAX       = "256"
        NOMADSERVE_BATCH_MAX_DELAY = "0s"
        NOMADSERVE_DRAIN_DELAY     = "0s"  # `shutdown_delay` above is that delay
        NOMADSERVE_DRAIN_TIMEOUT   = "25s" # inside of `kill_timeout`
        NOMADSERVE_LOG_LEVEL       = "info"
        NOMADSERVE_TENSORRT        = "tensorrt_rtx"
      }

      resources {
        cpu    = 500
        memory = 1024

        device "nvidia/gpu" {
          count = 2
        }
      }
    }
  }
}
