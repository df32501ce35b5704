"""All that touches Orthanc: triggers, jobs, REST routes, Explorer button."""
