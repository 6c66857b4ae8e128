# Version v1 of service digits. Made by nomadserve: change the service file, not this job.
job "digits-v1" {
  type        = "service"
  datacenters = ["dc1", "dc2"]
  namespace   = "ml"
  region      = "global"

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
    count = 2

    # The largest number that any check asks for wins.
    scaling {
      enabled = true
      min     = 2
      max     = 8

      policy {
        evaluation_interval = "5s"
        # The file's `cooldown` (2m) is in the queries; this is the rest after a change, up or down.
        cooldown             = "10s"
        cooldown_on_scale_up = "10s"
        # For all versions together: `up` and `split` give each its share as its `max`. The autoscaler knows only that.
        max_total = 12

        check "requests_per_second" {
          source       = "prometheus"
          query        = "clamp_max(clamp_max(max(label_replace(max_over_time((ceil((sum(rate(nomadserve_requests_total{service=\"digits\",version=\"v1\",outcome!=\"invalid\"}[30s])) / 100) * 1.25) >= 0)[120s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), scalar(max_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s]) or vector(0)) + 3), 8) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 130)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_down = 1
          }
        }

        check "in_flight" {
          source       = "prometheus"
          query        = "clamp_max(clamp_max(max(label_replace(max_over_time((ceil((sum(avg_over_time(nomadserve_in_flight{service=\"digits\",version=\"v1\"}[30s])) / 12.5) * 1.25) >= 0)[120s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), scalar(max_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s]) or vector(0)) + 3), 8) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 130)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_down = 1
          }
        }

        check "backlog_seconds" {
          source       = "prometheus"
          query        = "clamp_max(clamp_max(max(label_replace(max_over_time((ceil((sum(avg_over_time(nomadserve_backlog_seconds{service=\"digits\",version=\"v1\"}[30s])) / 0.5) * 1.25) >= 0)[120s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), scalar(max_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s]) or vector(0)) + 3), 8) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 130)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_down = 1
          }
        }

        check "cpu" {
          source       = "prometheus"
          query        = "clamp_max(clamp_max(max(label_replace(max_over_time((ceil((sum(rate(process_cpu_seconds_total{service=\"digits\",version=\"v1\"}[2m])) * 100 / 140) * 1.25) >= 0)[120s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), scalar(max_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s]) or vector(0)) + 3), 8) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 130)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_down = 1
          }
        }

        check "query" {
          source       = "prometheus"
          query        = "clamp_max(clamp_max(max(label_replace(max_over_time((ceil((vector(scalar(\nsum(jobs_waiting{queue=\"digits\"}) # from our own exporter\n  / 50\n))) * 1.25) >= 0)[120s:5s]), \"by\", \"load\", \"\", \"\") or label_replace((min_over_time(count(up{service=\"digits\",version=\"v1\"})[15s:5s]) > min_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s])), \"by\", \"growth\", \"\", \"\")) or count(up{service=\"digits\",version=\"v1\"}) or vector(0), scalar(max_over_time(count(up{service=\"digits\",version=\"v1\"})[120s:5s]) or vector(0)) + 3), 8) unless on() (time() - process_start_time_seconds{job=\"prometheus\"} < 130)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_down = 1
          }
        }

        # 0 8 * * MON-FRI to 30 18 * * MON-FRI, Asia/Tokyo; the autoscaler counts in UTC.
        check "schedule-office" {
          schedule {
            start = "0 23 * * 0-4"
            end   = "30 9 * * 1-5"
          }

          strategy "fixed-value" {
            value = 4
          }
        }

        # 0 6 1 12 * to 0 20 1 12 *, UTC; the autoscaler counts in UTC.
        check "schedule-launch" {
          schedule {
            start = "0 6 1 12 *"
            end   = "0 20 1 12 *"
          }

          strategy "fixed-value" {
            value = 8
          }
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
