# Version v1 of service digits. Made by nomadserve: change the service file, not this job.
job "digits-v1" {
  type        = "service"
  datacenters = ["*"]

  meta {
    nomadserve_service = "digits"
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
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "serve" {
    count = 1

    # The largest number that any check asks for wins.
    scaling {
      enabled = true
      min     = 0
      max     = 4

      policy {
        evaluation_interval = "2s"
        # The file's `cooldown` (5m) is in the queries; this is the rest after a change, up or down.
        # None after one that may have been the last replica: a request can come at once.
        cooldown             = "1s"
        cooldown_on_scale_up = "10s"

        check "cpu" {
          source       = "prometheus"
          query        = "clamp_max(max(label_replace(max_over_time((ceil(((sum(rate(process_cpu_seconds_total{service=\"digits\",version=\"v1\"}[30s])) * 100 / 140) * ((sum(rate(process_cpu_seconds_total{service=\"digits\",version=\"v1\"}[30s])) * 100 / 140) > bool 1))) >= 0)[300s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[300s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), 4) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 40)"
          query_window = "instant"

          strategy "pass-through" {
          }
        }

        # 0 8 * * 1-5 to 0 18 * * 1-5, UTC; the autoscaler counts in UTC.
        check "schedule-office" {
          schedule {
            start = "0 8 * * 1-5"
            end   = "0 18 * * 1-5"
          }

          strategy "fixed-value" {
            value = 1
          }
        }

        # The last replica stays while requests come, and comes back with them.
        check "awake" {
          source       = "prometheus"
          query        = "clamp_max((sum(increase(nomadserve_gateway_rq_total{envoy_cluster_name=~\"(failover-target~[0-9]+~)?digits-v1\"}[900s])) + sum(increase(nomadserve_gateway_cx_none_healthy{envoy_cluster_name=~\"(failover-target~[0-9]+~)?digits-v1\"}[900s])) + sum(max_over_time(nomadserve_gateway_rq_active{envoy_cluster_name=~\"(failover-target~[0-9]+~)?digits-v1\"}[900s])) + (sum(increase(nomadserve_requests_total{service=\"digits\",version=\"v1\"}[900s])) or vector(0)) + (sum(max_over_time(nomadserve_in_flight{service=\"digits\",version=\"v1\"}[900s])) or vector(0)) + (count(up{service=\"digits\",version=\"v1\"} == 1) unless on() count(up{service=\"digits\",version=\"v1\"} offset 900s == 1) or vector(0))) > bool 0 or count(up{service=\"digits\",version=\"v1\"}) or vector(0), 4) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 40)"
          query_window = "instant"

          strategy "pass-through" {}
        }
      }
    }

    network {
      mode = "host"
      port "http" {}
    }

    # Its replicas under one name. `native` lets Consul split traffic to them; they speak plain HTTP.
    service {
      provider = "consul"
      name     = "digits-v1"
      port     = "http"
      task     = "serve"
      tags     = ["nomadserve", "v1"]

      meta {
        service = "digits"
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
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["serve"]
      }

      env {
        NOMADSERVE_SERVICE         = "digits"
        NOMADSERVE_VERSION         = "v1"
        NOMADSERVE_MODELS          = "[{\"name\":\"digits\",\"path\":\"/srv/model.onnx\",\"engine\":\"onnxruntime\",\"max_batch\":32,\"checksum\":\"sha256:54af4b122691dd8f159e0a47cea783aec497eede033d4d3be1f5c1bf5abb2eb8\"}]"
        NOMADSERVE_HOST            = "${NOMAD_IP_http}"
        NOMADSERVE_PORT            = "${NOMAD_PORT_http}"
        NOMADSERVE_QUEUE_MAX       = "256"
        NOMADSERVE_BATCH_MAX_DELAY = "0s"
        NOMADSERVE_DRAIN_DELAY     = "0s"  # `shutdown_delay` above is that delay
        NOMADSERVE_DRAIN_TIMEOUT   = "25s" # inside of `kill_timeout`
        NOMADSERVE_LOG_LEVEL       = "info"
      }

      resources {
        cores  = 2
        memory = 1024
      }
    }
  }
}
